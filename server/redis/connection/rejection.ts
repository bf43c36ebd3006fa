import { once } from "node:events";
import { connect } from "node:net";
import type { Redis } from "ioredis";

/** Timeout for an error reply to a new connection, ms. Redis sends it at once or not at all. */
const REJECTION_MS_MAX = 1_000;

/**
 * Resolves with the error reply with which Redis rejects connections, or with `undefined` if it does not. In protected mode
 * and at `maxclients`, Redis writes an error reply to a new connection and closes it. A client that has sent something by
 * then gets a reset, which discards the reply. So this opens a connection and sends nothing.
 *
 * For plain TCP to one address only. With TLS the rejection follows the handshake.
 */
export async function readRejection({ options }: Redis): Promise<string | undefined> {
  if (options.tls || options.sentinels || !options.host) {
    return undefined;
  }
  const socket = connect({ host: options.host, port: options.port ?? 6379 });
  socket.setTimeout(REJECTION_MS_MAX, () => socket.destroy());
  try {
    const [bytes]: Buffer[] = await once(socket, "data", { signal: AbortSignal.timeout(REJECTION_MS_MAX) });
    const [line = ""] = (bytes?.toString() ?? "").split("\r\n");
    return line.startsWith("-") ? line.slice(1) : undefined;
  } catch {
    return undefined;
  } finally {
    socket.destroy();
  }
}

/**
 * Keeps ioredis from misreading the rejection in protected mode. It takes an error of its handshake that contains "no
 * password is set" for a superfluous password, warns of that on the console, and continues.
 */
export function reportProtectedMode(client: Redis, onRejection: (text: string) => void): void {
  const { hello } = client;
  const checked = async (...args: unknown[]): Promise<unknown> => {
    try {
      return await Reflect.apply(hello, client, args);
    } catch (error) {
      if (error instanceof Error && error.message.startsWith("DENIED")) {
        onRejection(error.message);
        throw new Error("Redis rejects connections in protected mode");
      }
      throw error;
    }
  };
  Object.assign(client, { hello: checked });
}
