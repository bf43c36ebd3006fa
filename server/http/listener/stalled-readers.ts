import type { Connection } from "./connection.ts";
import type { ListenerLimits } from "./limits.ts";

/** Destroys the connections with the most unread response bytes until the rest is within `unreadBytesMax`. */
export function closeStalledReaders(
  connections: ReadonlySet<Connection>,
  { unreadBytesMax }: ListenerLimits,
): void {
  const readers: { readonly connection: Connection; readonly bytes: number }[] = [];
  let sum = 0;
  for (const connection of connections) {
    const bytes = connection.unreadBytes();
    sum += bytes;
    if (bytes > 0) readers.push({ connection, bytes });
  }
  if (sum <= unreadBytesMax) return;
  readers.sort((one, other) => other.bytes - one.bytes);
  for (const { connection, bytes } of readers) {
    if (sum <= unreadBytesMax) return;
    sum -= bytes;
    connection.report(
      "info",
      `closed: ${bytes} unread response bytes; total exceeds unreadBytesMax (${unreadBytesMax})`,
    );
    connection.destroy();
  }
}
