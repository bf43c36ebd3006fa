import { once } from "node:events";
import { createServer, connect as dial, type Server, type Socket } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { freePort } from "./free-port.ts";

/** What the proxy does with the bytes of every connection, old and new. */
export type ProxyMode =
  | { readonly kind: "pass" }
  /** All connections are reset, and new ones refused. */
  | { readonly kind: "cut" }
  /** Connections are accepted and stay open, and forward nothing, not even their end. */
  | { readonly kind: "freeze" }
  /** Every byte arrives `ms` later, each way. */
  | { readonly kind: "delay"; readonly ms: number }
  /** Requests reach the server; its responses are discarded. */
  | { readonly kind: "dropReplies" }
  /** A slow link: bytes per second in each direction of each connection. */
  | { readonly kind: "throttle"; readonly bytesPerSecond: number };

export interface ProxyOptions {
  readonly target: { readonly host?: string; readonly port: number };
  /** A free one unless given. */
  readonly port?: number;
  /**
   * Limits the modes other than `cut` to connections on which the client has sent a chunk that matches. The chunk itself
   * is affected. All connections unless given.
   */
  readonly affects?: (chunk: Buffer) => boolean;
}

/** A TCP proxy on loopback that simulates faults of the network. */
export interface TcpProxy extends AsyncDisposable {
  readonly host: "127.0.0.1";
  readonly port: number;
  /** `127.0.0.1:PORT` */
  readonly address: string;
  /** `SCHEME://127.0.0.1:PORT` */
  readonly url: (scheme: string) => string;
  readonly mode: () => ProxyMode;
  /** Changes the mode, also for bytes that the previous mode holds. Leaving `dropReplies` resets connections that lost bytes. */
  readonly set: (mode: ProxyMode) => Promise<void>;
  readonly pass: () => Promise<void>;
  readonly cut: () => Promise<void>;
  readonly freeze: () => Promise<void>;
  readonly delay: (ms: number) => Promise<void>;
  readonly dropReplies: () => Promise<void>;
  readonly throttle: (bytesPerSecond: number) => Promise<void>;
  /**
   * Breaks one connection after the command and before the reply: the next chunk from a client (of those that `matches`
   * accepts) goes to the server; when the server answers on that connection, the answer is thrown away and the connection
   * reset. Resolves then. No other request may be under way on that connection, or its reply is taken for the answer.
   */
  readonly cutAfterRequest: (matches?: (chunk: Buffer) => boolean) => Promise<void>;
  /** Resets the open connections. New ones are accepted according to the mode. */
  readonly resetConnections: () => void;
  /** Number of open connections. */
  readonly connections: () => number;
  /** Number of connections accepted so far. */
  readonly accepted: () => number;
  /** Bytes of responses that were discarded. */
  readonly droppedBytes: () => number;
  readonly close: () => Promise<void>;
}

/** With more bytes waiting in one direction, reading stops, like with a full socket buffer. */
const heldBytesMax = 1024 * 1024;
const throttleStepMs = 20;
const portAttemptsMax = 5;

interface Connection {
  readonly client: Socket;
  readonly upstream: Socket;
  readonly ended: AbortController;
  /** Set if the response to the forwarded request, and then the connection, must be discarded. */
  onReply: (() => void) | undefined;
  lostBytes: boolean;
  isAffected: boolean;
}

interface Trap {
  readonly matches: (chunk: Buffer) => boolean;
  readonly sprung: () => void;
}

/** Starts a proxy in mode `pass`. */
export async function startTcpProxy(options: ProxyOptions): Promise<TcpProxy> {
  const target = { host: options.target.host ?? "127.0.0.1", port: options.target.port };
  const open = new Set<Connection>();
  let mode: ProxyMode = { kind: "pass" };
  let modeChanged = Promise.withResolvers<void>();
  let trap: Trap | undefined;
  let accepted = 0;
  let droppedBytes = 0;
  let listener: Server | undefined;

  function onClient(client: Socket): void {
    accepted += 1;
    const connection: Connection = {
      client,
      upstream: dial({ ...target, allowHalfOpen: true, noDelay: true }),
      ended: new AbortController(),
      onReply: undefined,
      lostBytes: false,
      isAffected: options.affects === undefined,
    };
    client.setNoDelay(true);
    open.add(connection);
    relay(connection, client, connection.upstream, (chunk) => onRequest(connection, chunk));
    relay(connection, connection.upstream, client, (chunk) => onReply(connection, chunk));
  }

  function modeOf({ isAffected }: Connection): ProxyMode {
    return isAffected || mode.kind === "cut" ? mode : { kind: "pass" };
  }

  function onRequest(connection: Connection, chunk: Buffer): boolean {
    if (trap?.matches(chunk)) {
      connection.onReply = trap.sprung;
      trap = undefined;
    }
    return true;
  }

  function onReply(connection: Connection, chunk: Buffer): boolean {
    const { onReply: sprung } = connection;
    if (sprung === undefined && modeOf(connection).kind !== "dropReplies") return true;
    droppedBytes += chunk.length;
    connection.lostBytes = true;
    if (sprung !== undefined) {
      reset(connection);
      sprung();
    }
    return false;
  }

  /** Forwards one direction in order. `admits` decides whether a chunk is forwarded or discarded. */
  function relay(connection: Connection, from: Socket, to: Socket, admits: (chunk: Buffer) => boolean): void {
    const { signal } = connection.ended;
    let line = Promise.resolve();
    let heldBytes = 0;

    function inOrder(step: () => Promise<void>): void {
      line = line.then(step).catch(() => {
        if (!signal.aborted) reset(connection);
      });
    }

    async function untilThawed(): Promise<void> {
      while (modeOf(connection).kind === "freeze" && !signal.aborted) await modeChanged.promise;
      signal.throwIfAborted();
    }

    async function untilDelayIsOver(arrivedAtMs: number): Promise<void> {
      const mode = modeOf(connection);
      if (mode.kind !== "delay") return;
      const restMs = arrivedAtMs + mode.ms - performance.now();
      if (restMs > 0) await pause(restMs, undefined, { signal });
    }

    async function send(chunk: Buffer): Promise<void> {
      let rest = chunk;
      while (rest.length > 0) {
        await untilThawed();
        const mode = modeOf(connection);
        const step =
          mode.kind === "throttle"
            ? Math.max(1, Math.floor((mode.bytesPerSecond * throttleStepMs) / 1000))
            : rest.length;
        const part = rest.subarray(0, step);
        if (mode.kind === "throttle") {
          await pause((part.length / mode.bytesPerSecond) * 1000, undefined, { signal });
        }
        if (!to.write(part)) await once(to, "drain", { signal });
        rest = rest.subarray(part.length);
      }
    }

    from.on("data", (chunk: Buffer) => {
      const arrivedAtMs = performance.now();
      if (from === connection.client && options.affects?.(chunk)) connection.isAffected = true;
      heldBytes += chunk.length;
      if (heldBytes > heldBytesMax) from.pause();
      inOrder(async () => {
        await untilDelayIsOver(arrivedAtMs);
        await untilThawed();
        if (admits(chunk)) await send(chunk);
        heldBytes -= chunk.length;
        if (heldBytes <= heldBytesMax) from.resume();
      });
    });
    from.on("end", () =>
      inOrder(async () => {
        await untilThawed();
        to.end();
      }),
    );
    from.on("error", () =>
      inOrder(async () => {
        await untilThawed();
        reset(connection);
      }),
    );
    from.on("close", () =>
      inOrder(async () => {
        await untilThawed();
        if (connection.client.destroyed && connection.upstream.destroyed) forget(connection);
      }),
    );
  }

  function forget(connection: Connection): void {
    open.delete(connection);
    connection.ended.abort();
  }

  function reset(connection: Connection): void {
    forget(connection);
    if (connection.client.writableEnded) connection.client.destroy();
    else connection.client.resetAndDestroy();
    connection.upstream.destroy();
  }

  function resetConnections(): void {
    for (const connection of open) reset(connection);
  }

  async function listen(port: number): Promise<void> {
    const server = createServer({ allowHalfOpen: true }, onClient);
    server.listen({ port, host: "127.0.0.1" });
    await once(server, "listening");
    listener = server;
  }

  async function unlisten(): Promise<void> {
    const server = listener;
    listener = undefined;
    if (server === undefined) return;
    const closed = once(server, "close");
    server.close();
    resetConnections();
    await closed;
  }

  async function set(next: ProxyMode): Promise<void> {
    if (mode.kind === "dropReplies") {
      for (const connection of open) if (connection.lostBytes) reset(connection);
    }
    mode = next;
    modeChanged.resolve();
    modeChanged = Promise.withResolvers();
    if (next.kind === "cut") await unlisten();
    else if (listener === undefined) await listen(port);
  }

  async function close(): Promise<void> {
    trap = undefined;
    mode = { kind: "cut" };
    modeChanged.resolve();
    await unlisten();
  }

  let port = options.port ?? (await freePort());
  for (let attempt = 1; listener === undefined; attempt++) {
    try {
      await listen(port);
    } catch (error) {
      if (options.port !== undefined || attempt === portAttemptsMax) throw error;
      port = await freePort();
    }
  }

  return {
    host: "127.0.0.1",
    port,
    address: `127.0.0.1:${port}`,
    url: (scheme) => `${scheme}://127.0.0.1:${port}`,
    mode: () => mode,
    set,
    pass: () => set({ kind: "pass" }),
    cut: () => set({ kind: "cut" }),
    freeze: () => set({ kind: "freeze" }),
    delay: (ms) => set({ kind: "delay", ms }),
    dropReplies: () => set({ kind: "dropReplies" }),
    throttle: (bytesPerSecond) => set({ kind: "throttle", bytesPerSecond }),
    cutAfterRequest: (matches = () => true) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      trap = { matches, sprung: resolve };
      return promise;
    },
    resetConnections,
    connections: () => open.size,
    accepted: () => accepted,
    droppedBytes: () => droppedBytes,
    close,
    [Symbol.asyncDispose]: close,
  };
}
