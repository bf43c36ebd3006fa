import { once } from "node:events";
import { createServer, connect as dial, type Socket } from "node:net";

/** The kind of peer that opened a connection to a Redis node, according to its first command. */
export type PeerKind = "client" | "replica" | "sentinel";

/** What a link does with the connections of one kind of peer. */
export type LinkMode =
  | { readonly kind: "pass" }
  /** Every chunk arrives `ms` later, each way. */
  | { readonly kind: "delay"; readonly ms: number }
  /** Connections stay open and forward nothing, not even their end. */
  | { readonly kind: "freeze" };

/**
 * The network link of one Redis node on loopback, which all its traffic passes. It distinguishes replicas, Sentinels and
 * clients, so that a test can delay replication, or partition a node from its peers while clients still reach it. Bytes that
 * a link holds when it is cut are lost, as if the machine had failed. A `kill -9` of the process loses nothing, because the
 * kernel still delivers what was written.
 */
export interface RedisLink extends AsyncDisposable {
  readonly port: number;
  set(kind: PeerKind, mode: LinkMode): void;
  /** Drops every connection with its buffered bytes, and refuses new ones. */
  cut(): void;
  /** Accepts connections again, after `cut`. */
  restore(): void;
  /**
   * Breaks one connection after a request and before its reply: the next chunk of a client that `matches` accepts is
   * forwarded; the reply is dropped with the connection. Resolves then.
   */
  cutAfterRequest(matches: (chunk: Buffer) => boolean): Promise<void>;
}

interface Connection {
  readonly client: Socket;
  readonly upstream: Socket;
  kind: PeerKind;
  isOver: boolean;
  /** Set if the connection is to end with the next reply. */
  onReply: (() => void) | undefined;
}

/** Replicas send REPLCONF before PSYNC; Sentinels name their connections. */
function kindOf(chunk: Buffer): PeerKind | undefined {
  const text = chunk.toString("latin1");
  if (/REPLCONF|PSYNC/i.test(text)) return "replica";
  return /sentinel-[0-9a-f]{8}-/.test(text) ? "sentinel" : undefined;
}

/** Listens on `port` of 127.0.0.1 and forwards to `targetPort`. */
export async function startRedisLink(port: number, targetPort: number): Promise<RedisLink> {
  const modes: Record<PeerKind, LinkMode> = {
    client: { kind: "pass" },
    replica: { kind: "pass" },
    sentinel: { kind: "pass" },
  };
  const open = new Set<Connection>();
  let isCut = false;
  let trap: { readonly matches: (chunk: Buffer) => boolean; readonly sprung: () => void } | undefined;
  let changed = Promise.withResolvers<void>();

  function relay(connection: Connection, from: Socket, to: Socket, isRequest: boolean): void {
    let line = Promise.resolve();
    const inOrder = (step: () => void): void => {
      const arrivedAt = performance.now();
      line = line
        .then(() => admitted(connection, arrivedAt))
        .then(() => {
          if (!connection.isOver) step();
        });
    };
    from.on("data", (chunk: Buffer) => {
      if (isRequest) connection.kind = kindOf(chunk) ?? connection.kind;
      if (isRequest && trap?.matches(chunk)) {
        connection.onReply = trap.sprung;
        trap = undefined;
      } else if (!isRequest && connection.onReply !== undefined) {
        connection.onReply();
        drop(connection);
      }
      inOrder(() => to.write(chunk));
    });
    from.on("end", () => inOrder(() => to.end()));
    from.on("error", () => inOrder(() => drop(connection)));
    from.on("close", () => inOrder(() => drop(connection)));
  }

  async function admitted(connection: Connection, arrivedAt: number): Promise<void> {
    while (!connection.isOver && modes[connection.kind].kind === "freeze") await changed.promise;
    const mode = modes[connection.kind];
    const restMs = mode.kind === "delay" ? arrivedAt + mode.ms - performance.now() : 0;
    if (restMs > 0) await new Promise((resolve) => setTimeout(resolve, restMs));
  }

  function drop(connection: Connection): void {
    connection.isOver = true;
    open.delete(connection);
    connection.client.destroy();
    connection.upstream.destroy();
  }

  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    if (isCut) return client.resetAndDestroy();
    const upstream = dial({ host: "127.0.0.1", port: targetPort, allowHalfOpen: true, noDelay: true });
    const connection: Connection = { client, upstream, kind: "client", isOver: false, onReply: undefined };
    open.add(connection);
    relay(connection, client, upstream, true);
    relay(connection, upstream, client, false);
  });
  server.listen({ port, host: "127.0.0.1" });
  await once(server, "listening");

  return {
    port,
    set: (kind, mode) => {
      modes[kind] = mode;
      changed.resolve();
      changed = Promise.withResolvers();
    },
    cut: () => {
      isCut = true;
      for (const connection of open) drop(connection);
      changed.resolve();
      changed = Promise.withResolvers();
    },
    restore: () => {
      isCut = false;
    },
    cutAfterRequest: (matches) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      trap = { matches, sprung: resolve };
      return promise;
    },
    async [Symbol.asyncDispose]() {
      for (const connection of open) drop(connection);
      changed.resolve();
      const closed = once(server, "close");
      server.close();
      await closed;
    },
  };
}
