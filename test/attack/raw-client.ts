import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { setTimeout as pause } from "node:timers/promises";

export const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
export const FRAME = {
  data: 0,
  headers: 1,
  reset: 3,
  settings: 4,
  ping: 6,
  windowUpdate: 8,
  continuation: 9,
};
export const END_STREAM = 1;
export const END_HEADERS = 4;

/** A frame of HTTP/2 (RFC 9113, section 4.1). */
export function frame(
  type: number,
  flags: number,
  stream: number,
  payload: Buffer = Buffer.alloc(0),
): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

export const SETTINGS = frame(FRAME.settings, 0, 0);

/** A string of HPACK without Huffman coding (RFC 7541, section 5.2), up to 16 KB. */
function text(value: string): Buffer {
  const { length } = value;
  const size =
    length < 127
      ? Buffer.of(length)
      : length < 255
        ? Buffer.of(127, length - 127)
        : Buffer.of(127, 0x80 | ((length - 127) & 0x7f), (length - 127) >> 7);
  return Buffer.concat([size, Buffer.from(value)]);
}

/** A header field that is not indexed. */
export function field(name: string, value: string): Buffer {
  return Buffer.concat([Buffer.of(0), text(name), text(value)]);
}

/** A header field that is added to the peer's table, where one byte refers to it. */
export function indexedField(name: string, value: string): Buffer {
  return Buffer.concat([Buffer.of(0x40), text(name), text(value)]);
}

/** The header block of a POST with a content type, gRPC unless given. */
export function postBlock(path: string, contentType = "application/grpc"): Buffer {
  return Buffer.concat([
    Buffer.of(0x83, 0x86),
    field(":path", path),
    field(":authority", "localhost"),
    field("content-type", contentType),
    field("te", "trailers"),
  ]);
}

/** The head of a POST over HTTP/1.1. The caller sends the body. */
export function postHead(path: string, headers: Readonly<Record<string, string | number>>): string {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return `POST ${path} HTTP/1.1\r\nHost: localhost\r\n${lines.join("")}\r\n`;
}

/** A TCP client for raw bytes. Nothing that the server does to the connection is an error. */
export class RawClient implements Disposable {
  readonly socket: Socket;
  received = "";

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("error", () => undefined);
  }

  /** Resolves when it is connected or refused. */
  static async open(port: number): Promise<RawClient> {
    const client = new RawClient(connect({ port, host: "127.0.0.1", noDelay: true }));
    await once(client.socket, "connect").catch(() => undefined);
    return client;
  }

  static openMany(port: number, count: number): Promise<RawClient[]> {
    return Promise.all(Array.from({ length: count }, () => RawClient.open(port)));
  }

  get isOpen(): boolean {
    return !this.socket.destroyed && this.socket.writable;
  }

  /** Reads everything, and keeps the beginning. */
  read(): this {
    this.socket.on("data", (chunk: Buffer) => {
      this.received = `${this.received}${chunk.toString("latin1")}`.slice(0, 10_000);
    });
    return this;
  }

  /** Sends, and waits for a bounded time while the server does not read. */
  async send(bytes: Buffer | string, patienceMs = 500): Promise<void> {
    if (this.isOpen && !this.socket.write(bytes)) {
      await this.#event("drain", patienceMs);
    }
  }

  /** Whether the server closes it within the time. */
  async closed(patienceMs: number): Promise<boolean> {
    if (!this.socket.destroyed) {
      await this.#event("close", patienceMs);
    }
    return this.socket.destroyed;
  }

  [Symbol.dispose](): void {
    this.socket.resetAndDestroy();
  }

  async #event(name: string, patienceMs: number): Promise<void> {
    const over = new AbortController();
    const { signal } = over;
    await Promise.race([
      once(this.socket, name, { signal }),
      once(this.socket, "close", { signal }),
      pause(patienceMs, undefined, { signal }),
    ]).catch(() => undefined);
    over.abort();
  }
}
