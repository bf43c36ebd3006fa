import { ServerResponse, STATUS_CODES } from "node:http";
import { constants, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import type { Log } from "../ops/throttled-log.ts";
import type { ListenerLimits } from "./listener-limits.ts";
import type { Protocol } from "./protocol-detection.ts";

/** The status that tells an HTTP/1.1 client what its request broke; 400 for all that is not here. */
const STATUS_BY_ERROR_CODE: ReadonlyMap<string, number> = new Map([
  ["ERR_HTTP_REQUEST_TIMEOUT", 408],
  ["HPE_CHUNK_EXTENSIONS_OVERFLOW", 413],
  ["HPE_HEADER_OVERFLOW", 431],
]);

/** What a peer does that just leaves: not worth a line in a log at its usual level. */
const DEPARTURE_CODES: ReadonlySet<string> = new Set(["ECONNRESET", "EPIPE", "HPE_INVALID_EOF_STATE"]);

type Answer = ServerHttp2Stream | ServerResponse;

/**
 * One accepted connection, from its first byte to its close. It has one timer, which belongs to the stage
 * it is in, and it logs one line at most, for the first thing that goes wrong.
 */
export class Connection {
  readonly #raw: Socket;
  readonly #limits: ListenerLimits;
  readonly #log: Log;
  readonly #remote: string;
  readonly #isLongLived: (target: string | undefined) => boolean;
  /** What is being answered, and when it began: milliseconds of `performance.now()`, for what is long-lived `Infinity`. */
  readonly #open = new Map<Answer, number>();
  #socket: Socket;
  #protocol: Protocol | undefined;
  #session: ServerHttp2Session | undefined;
  #timer: NodeJS.Timeout | undefined;
  #draining = false;
  #hasServed = false;
  /** Since the last look at times. */
  #pings = 0;
  #lingering = false;
  #reported = false;

  /** `raw` is the TCP socket, which under TLS is not the one that carries HTTP. `isLongLived` is asked with a request's target. */
  constructor(
    raw: Socket,
    limits: ListenerLimits,
    isLongLived: (target: string | undefined) => boolean,
    log: Log,
  ) {
    this.#raw = raw;
    this.#socket = raw;
    this.#limits = limits;
    this.#isLongLived = isLongLived;
    this.#log = log;
    this.#remote = `${raw.remoteAddress}:${raw.remotePort}`;
    raw.on("error", (error) => this.reportError(error));
    raw.on("close", () => clearTimeout(this.#timer));
    this.#arm(limits.firstByteMs, () => {
      this.report("debug", `no request began within ${limits.firstByteMs} ms`);
      this.destroy();
    });
  }

  /** The TLS handshake is done: `socket` carries the plain bytes from now on. */
  secured(socket: Socket): void {
    this.#socket = socket;
    socket.on("error", (error) => this.reportError(error));
  }

  /** The first bytes are HTTP/1.1; from here Node's HTTP server keeps the times. */
  becameHttp1(): void {
    this.#protocol = "HTTP/1.1";
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** The first bytes are HTTP/2, and this is its session. */
  becameHttp2(session: ServerHttp2Session): void {
    const { firstByteMs, idleMs, settingsFramesMax, pingsPerLookMax } = this.#limits;
    let settingsFrames = 0;
    this.#protocol = "HTTP/2";
    this.#session = session;
    this.#arm(firstByteMs, () => {
      this.report("debug", `no SETTINGS came within ${firstByteMs} ms`);
      this.destroy();
    });
    session.on("remoteSettings", () => {
      settingsFrames += 1;
      if (settingsFrames > settingsFramesMax) {
        this.report("info", `it sent more than ${settingsFramesMax} SETTINGS`);
        session.destroy();
      } else if (settingsFrames === 1 && !session.closed)
        this.#arm(idleMs, () => this.#open.size === 0 && this.#closeSession());
    });
    session.on("ping", () => {
      this.#pings += 1;
      if (this.#pings > pingsPerLookMax) {
        this.report("info", `it sent more than ${pingsPerLookMax} PINGs at once`);
        session.destroy();
      }
    });
    session.on("stream", (stream: ServerHttp2Stream, headers) => {
      this.#begin(stream, headers[":path"]);
      stream.on("close", () => {
        // V8 may hold an ended stream until its next full collection. What the call has left on it must not be held, too.
        stream.removeAllListeners();
        this.#open.delete(stream);
        this.#hasServed = true;
        if (this.#open.size > 0) return;
        if (session.closed) this.#linger();
        else if (!this.#raw.destroyed) this.#timer?.refresh();
      });
    });
    session.on("error", (error) => this.reportError(error));
  }

  /** Keeps an HTTP/1.1 answer in view until it ended, so that the connection knows whether it is in use. False where it was one too many. */
  answering(res: ServerResponse): boolean {
    const { pipelinedMax } = this.#limits;
    if (this.#open.size >= pipelinedMax) {
      this.report("info", `it has sent more than ${pipelinedMax} requests before their answers`);
      this.destroy();
      return false;
    }
    this.#begin(res, res.req.url);
    if (this.#draining) res.setHeader("Connection", "close");
    res.on("close", () => {
      this.#open.delete(res);
      if (this.#draining && this.#open.size === 0) this.#socket.destroySoon();
    });
    return true;
  }

  /**
   * Cuts what has had its time: one pass over all costs less than timers for each. Node itself bounds the time of an HTTP/1.1
   * request.
   */
  closeOverdue(): void {
    this.#pings = 0;
    const { requestMs, answerMs } = this.#limits;
    const now = performance.now();
    for (const [answer, beganAt] of this.#open) {
      const age = now - beganAt;
      if (age < Math.min(requestMs, answerMs)) continue;
      if (age >= answerMs) this.#cut(answer, `an answer took over ${answerMs} ms`);
      // What has arrived and is not read yet waits for this server, and not for its client.
      else if (!(answer instanceof ServerResponse) && answer.state.remoteClose !== 1)
        this.#cut(answer, `a request took over ${requestMs} ms`);
    }
  }

  /** Answers what could not be parsed, or not in time, with its status, and closes. */
  refuseHttp1(error: NodeJS.ErrnoException): void {
    if (this.#lingering) return;
    this.reportError(error);
    const begun = [...this.#open.keys()].some((answer) => answer.headersSent);
    if (begun || !this.#socket.writable) {
      this.destroy();
      return;
    }
    const status = STATUS_BY_ERROR_CODE.get(error.code ?? "") ?? 400;
    this.#socket.end(
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`,
    );
    this.#linger();
  }

  /** Bytes of answers that wait for the peer to read. */
  unreadBytes(): number {
    let bytes = this.#socket.writableLength;
    for (const answer of this.#open.keys()) bytes += answer.writableLength;
    return bytes;
  }

  /** Ends it as soon as its open requests are answered; at once if it has not begun one. */
  drain(): void {
    this.#draining = true;
    if (this.#session !== undefined) this.#closeSession();
    else if (this.#protocol === undefined) this.destroy();
    for (const answer of this.#open.keys()) {
      if (answer instanceof ServerResponse && !answer.headersSent) answer.setHeader("Connection", "close");
    }
  }

  /** Resolves when it closes; never, if it had closed before. */
  ended(): Promise<void> {
    return new Promise((resolve) => this.#raw.once("close", () => resolve()));
  }

  /** Cuts it. What fails in consequence is not reported. */
  destroy(): void {
    this.#reported = true;
    this.#raw.destroy();
  }

  /** Logs why this connection failed, unless it has been said already. */
  report(level: "debug" | "info" | "warn", reason: string, err?: unknown): void {
    if (this.#reported) return;
    this.#reported = true;
    this.#log[level](
      { remote: this.#remote, protocol: this.#protocol, err },
      `Connection of ${this.#remote} failed: ${reason}`,
    );
  }

  reportError(error: NodeJS.ErrnoException): void {
    // A session whose streams were all served lost nothing by its end: grpc-go closes with what nghttp2 calls a protocol error.
    const isServed = this.#hasServed && this.#open.size === 0;
    const level = isServed || DEPARTURE_CODES.has(error.code ?? "") ? "debug" : "info";
    // OpenSSL's messages hold addresses in memory and end in a line feed; their codes say the same.
    const isOpenssl = error.code?.startsWith("ERR_SSL_") === true;
    this.report(level, isOpenssl ? `${error.code}` : `${error.message} (${error.code ?? error.name})`);
  }

  #begin(answer: Answer, target: string | undefined): void {
    this.#open.set(answer, this.#isLongLived(target) ? Number.POSITIVE_INFINITY : performance.now());
  }

  #cut(answer: Answer, reason: string): void {
    this.report("info", reason);
    if (answer instanceof ServerResponse) this.destroy();
    else {
      answer.close(constants.NGHTTP2_CANCEL);
      answer.destroy();
    }
  }

  /** Sends GOAWAY, which names the last stream that is served: the client may send any later one elsewhere. */
  #closeSession(): void {
    const session = this.#session;
    if (session === undefined || session.closed || session.destroyed) return;
    clearTimeout(this.#timer);
    session.close();
    if (this.#open.size === 0) this.#linger();
  }

  /** The server's half is closed, or will be when its last bytes are out: wait for the peer, but not for ever. */
  #linger(): void {
    if (this.#lingering) return;
    this.#lingering = true;
    this.#arm(this.#limits.lingerMs, () => this.destroy());
  }

  #arm(ms: number, expired: () => void): void {
    clearTimeout(this.#timer);
    if (this.#raw.destroyed) return;
    this.#timer = setTimeout(expired, ms).unref();
  }
}

/** Cuts whoever leaves most unread, until the rest is within the bound. */
export function closeStalledReaders(open: ReadonlySet<Connection>, { unreadBytesMax }: ListenerLimits): void {
  const unread: { readonly connection: Connection; readonly bytes: number }[] = [];
  let sum = 0;
  for (const connection of open) {
    const bytes = connection.unreadBytes();
    sum += bytes;
    if (bytes > 0) unread.push({ connection, bytes });
  }
  if (sum <= unreadBytesMax) return;
  unread.sort((one, other) => other.bytes - one.bytes);
  for (const { connection, bytes } of unread) {
    if (sum <= unreadBytesMax) return;
    sum -= bytes;
    connection.report(
      "info",
      `it leaves ${bytes} bytes unread, and all together more than ${unreadBytesMax}`,
    );
    connection.destroy();
  }
}
