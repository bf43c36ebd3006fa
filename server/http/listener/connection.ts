import { ServerResponse, STATUS_CODES } from "node:http";
import { constants, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import type { Log } from "../../ops/throttled-log.ts";
import type { Refusal } from "../refusal.ts";
import type { ListenerLimits } from "./limits.ts";
import type { Protocol } from "./protocol-detection.ts";

/** Errors of a peer that closed its connection: logged at debug level. */
const DISCONNECT_CODES: ReadonlySet<string> = new Set(["ECONNRESET", "EPIPE", "HPE_INVALID_EOF_STATE"]);

type Exchange = ServerHttp2Stream | ServerResponse;

/** What the connections of a listener share. One object for all: a listener may have thousands of idle connections. */
export interface ConnectionContext {
  readonly limits: ListenerLimits;
  /** Whether the response to a request with this target may take hours. */
  readonly isLongLived: (target: string | undefined) => boolean;
  readonly log: Log;
  readonly onClose: (connection: Connection) => void;
}

/** By TCP socket, by the TLS socket on top of it, and by HTTP/2 session. */
const connections = new WeakMap<object, Connection>();

/**
 * One accepted connection, from its first byte to its close. It has one timer, which belongs to the stage that the
 * connection is in, and it logs at most one line, for its first failure.
 */
export class Connection {
  readonly #context: ConnectionContext;
  readonly #raw: Socket;
  readonly #remoteAddress: string | undefined;
  readonly #remotePort: number | undefined;
  /** Open requests with the time of their start in milliseconds of `performance.now()`; `Infinity` for long-lived ones. */
  readonly #open = new Map<Exchange, number>();
  #socket: Socket;
  #protocol: Protocol | undefined;
  #session: ServerHttp2Session | undefined;
  /** One listener for all streams of the session. */
  #onStreamClose: ((this: ServerHttp2Stream) => void) | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isDraining = false;
  #hasServed = false;
  /** Since the last `closeOverdue`. */
  #pings = 0;
  #isClosing = false;
  #isReported = false;

  /** `raw` is the TCP socket. Under TLS another socket carries HTTP; see `secured`. */
  constructor(raw: Socket, context: ConnectionContext) {
    this.#context = context;
    this.#raw = raw;
    this.#socket = raw;
    // Read now: a closed socket may not have them.
    this.#remoteAddress = raw.remoteAddress;
    this.#remotePort = raw.remotePort;
    connections.set(raw, this);
    raw.on("error", onError);
    raw.on("close", onClose);
    const { firstByteMs } = context.limits;
    this.#startTimer(firstByteMs, () => {
      this.report("debug", `no request began within ${firstByteMs} ms`);
      this.destroy();
    });
  }

  /** The remote address, `undefined` if the socket had closed before it was accepted. */
  get remoteAddress(): string | undefined {
    return this.#remoteAddress;
  }

  /** The TLS handshake is complete. `socket` carries the decrypted bytes. */
  secured(socket: Socket): void {
    this.#socket = socket;
    connections.set(socket, this);
    socket.on("error", onError);
  }

  /** The TCP socket has closed. */
  closed(): void {
    clearTimeout(this.#timer);
    this.#context.onClose(this);
  }

  /**
   * The protocol is HTTP/1.1. From here on Node's HTTP server enforces the timeouts, and emits "clientError" for errors of
   * the socket.
   */
  becameHttp1(): void {
    this.#protocol = "HTTP/1.1";
    this.#socket.off("error", onError);
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** The protocol is HTTP/2, and `session` is its session. */
  becameHttp2(session: ServerHttp2Session): void {
    this.#protocol = "HTTP/2";
    this.#session = session;
    connections.set(session, this);
    this.#awaitSettings(session);
    this.#limitPings(session);
    const close = (stream: ServerHttp2Stream): void => this.#streamClosed(stream, session);
    this.#onStreamClose = function onStreamClose() {
      close(this);
    };
    session.on("error", onError);
  }

  /** Tracks an HTTP/2 stream until it closes. */
  trackStream(stream: ServerHttp2Stream, target: string | undefined): void {
    this.#track(stream, target);
    if (this.#onStreamClose !== undefined) stream.on("close", this.#onStreamClose);
  }

  /** Tracks an HTTP/1.1 response until it ends. Returns false, and destroys the connection, beyond `pipelinedMax`. */
  trackResponse(response: ServerResponse): boolean {
    const { pipelinedMax } = this.#context.limits;
    if (this.#open.size >= pipelinedMax) {
      this.report("info", `more than ${pipelinedMax} pipelined requests are open`);
      this.destroy();
      return false;
    }
    this.#track(response, response.req.url);
    if (this.#isDraining) response.setHeader("Connection", "close");
    response.on("close", onResponseClose);
    return true;
  }

  /** An HTTP/1.1 response has ended, or was aborted. */
  responseClosed(response: ServerResponse): void {
    // Discards what the handler left unread: the connection would not reach its next request.
    response.req.resume();
    this.#open.delete(response);
    if (this.#isDraining && this.#open.size === 0) this.#socket.destroySoon();
  }

  /**
   * Closes requests and responses that exceeded their time. Called at intervals: one pass costs less than a timer for each. Node
   * itself bounds the time in which an HTTP/1.1 request must arrive.
   */
  closeOverdue(): void {
    this.#pings = 0;
    const { requestMs, responseMs } = this.#context.limits;
    const now = performance.now();
    for (const [exchange, startedAt] of this.#open) {
      const age = now - startedAt;
      if (age < Math.min(requestMs, responseMs)) continue;
      if (age >= responseMs) this.#close(exchange, `a response took more than ${responseMs} ms`);
      // A request that has arrived completely, and is not read yet, is delayed by this server and not by the client.
      else if (!(exchange instanceof ServerResponse) && exchange.state.remoteClose !== 1)
        this.#close(exchange, `a request took more than ${requestMs} ms`);
    }
  }

  /** Responds to CONNECT, and closes. Node's HTTP server has removed its listeners from the socket. */
  refuseTunnel(refusal: Refusal): void {
    this.#socket.on("error", onError);
    this.refuseHttp1(refusal);
  }

  /**
   * Responds to an HTTP/1.1 request for which Node has no response object, and closes. If an earlier request of the connection is
   * still without a response, it gets that instead: the client would take this one for it.
   */
  refuseHttp1({ status, message, headers = {} }: Refusal): void {
    if (this.#isClosing) return;
    const exchanges = [...this.#open.keys()];
    if (!this.#socket.writable || exchanges.some(({ headersSent }) => headersSent)) {
      this.destroy();
      return;
    }
    if (exchanges.some((exchange) => exchange instanceof ServerResponse && exchange.req.complete)) {
      this.#isClosing = true;
      this.drain();
      return;
    }
    const body = `${message}\n`;
    const fields = {
      Date: new Date().toUTCString(),
      Connection: "close",
      "Content-Type": "text/plain; charset=utf-8",
      "Content-Length": Buffer.byteLength(body),
      ...headers,
    };
    const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
    this.#socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join("")}\r\n${body}`);
    this.awaitClose();
  }

  /**
   * The server has closed its half, or will after its last bytes. Bounds the wait for the peer to close the other. Further bytes of
   * the peer are not an error.
   */
  awaitClose(): void {
    if (this.#isClosing) return;
    this.#isClosing = true;
    this.#startTimer(this.#context.limits.closeMs, () => this.destroy());
  }

  /** Bytes of responses that the peer has not read. */
  unreadBytes(): number {
    let bytes = this.#socket.writableLength;
    for (const exchange of this.#open.keys()) bytes += exchange.writableLength;
    return bytes;
  }

  /** Closes the connection after its open requests, or at once if it has not begun one. */
  drain(): void {
    this.#isDraining = true;
    if (this.#session !== undefined) this.#closeSession();
    else if (this.#protocol === undefined) this.destroy();
    for (const exchange of this.#open.keys()) {
      if (exchange instanceof ServerResponse && !exchange.headersSent)
        exchange.setHeader("Connection", "close");
    }
  }

  /** Resolves when the connection closes; never if it has closed already. */
  ended(): Promise<void> {
    return new Promise((resolve) => this.#raw.once("close", () => resolve()));
  }

  /** Errors that follow from it are not logged. */
  destroy(): void {
    this.#isReported = true;
    this.#raw.destroy();
  }

  /** Logs why this connection failed, unless a reason was logged already. */
  report(level: "debug" | "info" | "warn", reason: string, err?: unknown): void {
    if (this.#isReported) return;
    this.#isReported = true;
    const remote = `${this.#remoteAddress}:${this.#remotePort}`;
    this.#context.log[level](
      { remote, protocol: this.#protocol, err },
      `Connection from ${remote} failed: ${reason}`,
    );
  }

  reportError(error: NodeJS.ErrnoException): void {
    // An error on a session with no open stream loses nothing: grpc-go closes its idle sessions with what nghttp2 reports as a protocol error.
    const isServed = this.#hasServed && this.#open.size === 0;
    const level = isServed || DISCONNECT_CODES.has(error.code ?? "") ? "debug" : "info";
    // OpenSSL's messages contain memory addresses and end in a line feed. Their codes say the same.
    const isOpenssl = error.code?.startsWith("ERR_SSL_") === true;
    this.report(level, isOpenssl ? `${error.code}` : `${error.message} (${error.code ?? error.name})`);
  }

  /** Times out on the first SETTINGS, then on idleness; closes a session that sends SETTINGS without end. */
  #awaitSettings(session: ServerHttp2Session): void {
    const { firstByteMs, idleMs, settingsFramesMax } = this.#context.limits;
    let settingsFrames = 0;
    this.#startTimer(firstByteMs, () => {
      this.report("debug", `no SETTINGS arrived within ${firstByteMs} ms`);
      this.destroy();
    });
    session.on("remoteSettings", () => {
      settingsFrames += 1;
      if (settingsFrames > settingsFramesMax) {
        this.report("info", `the client sent more than ${settingsFramesMax} SETTINGS frames`);
        session.destroy();
      } else if (settingsFrames === 1 && !session.closed)
        this.#startTimer(idleMs, () => this.#open.size === 0 && this.#closeSession());
    });
  }

  #limitPings(session: ServerHttp2Session): void {
    const { pingsPerCheckMax, connectionsCheckingIntervalMs } = this.#context.limits;
    session.on("ping", () => {
      this.#pings += 1;
      if (this.#pings > pingsPerCheckMax) {
        this.report(
          "info",
          `the client sent more than ${pingsPerCheckMax} PING frames within ${connectionsCheckingIntervalMs} ms`,
        );
        session.destroy();
      }
    });
  }

  #streamClosed(stream: ServerHttp2Stream, session: ServerHttp2Session): void {
    // V8 may keep a closed stream until its next full collection. Its listeners would keep the call as well.
    // "removeListener" first: while it has Node's own listener, each of the others is removed one by one with an event.
    stream.removeAllListeners("removeListener").removeAllListeners();
    this.#open.delete(stream);
    this.#hasServed = true;
    if (this.#open.size > 0) return;
    if (session.closed) this.awaitClose();
    else if (!this.#raw.destroyed) this.#timer?.refresh();
  }

  #track(exchange: Exchange, target: string | undefined): void {
    this.#open.set(
      exchange,
      this.#context.isLongLived(target) ? Number.POSITIVE_INFINITY : performance.now(),
    );
  }

  #close(exchange: Exchange, reason: string): void {
    this.report("info", reason);
    if (exchange instanceof ServerResponse) this.destroy();
    else {
      exchange.close(constants.NGHTTP2_CANCEL);
      exchange.destroy();
    }
  }

  /** Sends GOAWAY. It names the last stream that is served; the client may retry any later one elsewhere. */
  #closeSession(): void {
    const session = this.#session;
    if (session === undefined || session.closed || session.destroyed) return;
    clearTimeout(this.#timer);
    session.close();
    if (this.#open.size === 0) this.awaitClose();
  }

  #startTimer(ms: number, onExpiry: () => void): void {
    clearTimeout(this.#timer);
    if (this.#raw.destroyed) return;
    this.#timer = setTimeout(onExpiry, ms).unref();
  }
}

/** The connection of a TCP socket, of the TLS socket on top of it, or of an HTTP/2 session. */
export function connectionOf(carrier: object): Connection | undefined {
  return connections.get(carrier);
}

// Listeners that all connections share. They find their connection by the emitter: a closure for each connection would be kept as
// long as the connection, and there may be thousands of idle ones.

function onError(this: Socket | ServerHttp2Session, error: Error): void {
  connections.get(this)?.reportError(error);
}

function onClose(this: Socket): void {
  connections.get(this)?.closed();
}

function onResponseClose(this: ServerResponse): void {
  connections.get(this.req.socket)?.responseClosed(this);
}
