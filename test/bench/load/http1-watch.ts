import { connect, type Socket } from "node:net";

const HEAD_END = Buffer.from("\r\n\r\n", "latin1");
const LINE_END = 0x0a;
const LINE_END_BYTES = 2;

export interface Http1WatchOptions {
  readonly url: string;
  readonly path: string;
  /** The enveloped request of a Connect stream. */
  readonly body: Buffer;
  /** Local loopback address, because the service has limits per client address. */
  readonly localAddress?: string | undefined;
  readonly onData: (bytes: Buffer, start: number, end: number) => void;
  readonly onClose: (reason: Error) => void;
}

/** A Connect streaming call over HTTP/1.1 on a plain socket. Only the chunks of the response are parsed. */
export class Http1Watch {
  readonly #socket: Socket;
  readonly #options: Http1WatchOptions;
  #rest: Buffer | undefined;
  #isBody = false;
  /** Remaining bytes of the current chunk. */
  #chunkBytes = 0;
  #isClosed = false;

  constructor(options: Http1WatchOptions) {
    this.#options = options;
    const { url, path, body, localAddress } = options;
    const { hostname, port, host } = new URL(url);
    this.#socket = connect({
      host: hostname,
      port: Number(port),
      noDelay: true,
      ...(localAddress !== undefined && { localAddress }),
      onread: {
        buffer: SHARED_BUFFER,
        callback: (length) => {
          this.#read(SHARED_BUFFER.subarray(0, length));
          return true;
        },
      },
    });
    this.#socket.on("error", (error) => this.#closed(error));
    this.#socket.on("close", () => this.#closed(new Error(`${url} has closed a watch`)));
    const head = [
      `POST ${path} HTTP/1.1`,
      `host: ${host}`,
      "content-type: application/connect+proto",
      "connect-protocol-version: 1",
      `content-length: ${body.length}`,
    ];
    this.#socket.write(Buffer.concat([Buffer.from(`${head.join("\r\n")}\r\n\r\n`, "latin1"), body]));
  }

  close(): void {
    this.#isClosed = true;
    this.#socket.destroy();
  }

  #closed(reason: Error): void {
    if (!this.#isClosed) {
      this.#isClosed = true;
      this.#socket.destroy();
      this.#options.onClose(reason);
    }
  }

  #read(bytes: Buffer): void {
    const whole = this.#rest === undefined ? bytes : Buffer.concat([this.#rest, bytes]);
    this.#rest = undefined;
    let at = this.#isBody ? 0 : this.#head(whole);
    while (at < whole.length) {
      if (this.#chunkBytes > 0) {
        // The last two bytes of a chunk are its CRLF.
        const end = Math.min(at + this.#chunkBytes, whole.length);
        const dataEnd = Math.min(end, at + this.#chunkBytes - LINE_END_BYTES);
        if (dataEnd > at) {
          this.#options.onData(whole, at, dataEnd);
        }
        this.#chunkBytes -= end - at;
        at = end;
        continue;
      }
      const lineEnd = whole.indexOf(LINE_END, at);
      if (lineEnd < 0) {
        break;
      }
      const size = Number.parseInt(whole.toString("latin1", at, lineEnd), 16);
      if (!(size > 0)) {
        this.#closed(new Error("A watch has ended"));
        return;
      }
      this.#chunkBytes = size + LINE_END_BYTES;
      at = lineEnd + 1;
    }
    if (at < whole.length) {
      this.#rest = Buffer.from(whole.subarray(at));
    }
  }

  /** Offset of the body, or the length of the bytes if the head is incomplete. */
  #head(bytes: Buffer): number {
    const end = bytes.indexOf(HEAD_END);
    if (end < 0) {
      this.#rest = Buffer.from(bytes);
      return bytes.length;
    }
    const head = bytes.toString("latin1", 0, end).toLowerCase();
    if (!head.startsWith("http/1.1 200") || !head.includes("transfer-encoding: chunked")) {
      this.#closed(new Error(`A watch received the response ${head}`));
      return bytes.length;
    }
    this.#isBody = true;
    return end + HEAD_END.length;
  }
}

/** Shared by all connections: bytes are processed before the next read. */
const SHARED_BUFFER = Buffer.allocUnsafe(64 * 1024);
