import { connect, type Socket } from "node:net";

const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");
const FRAME_HEAD_BYTES = 9;
const FRAME = { data: 0, headers: 1, reset: 3, settings: 4, ping: 6, goAway: 7, windowUpdate: 8 } as const;
const FLAG = { endStream: 0x1, ack: 0x1, endHeaders: 0x4, padded: 0x8 } as const;
const SETTING = { headerTableSize: 1, enablePush: 2, initialWindowSize: 4 } as const;
const WINDOW_MAX = 2_147_483_647;
const WINDOW_DEFAULT = 65_535;
/** The window of the connection is replenished after this number of bytes. */
const WINDOW_REFILL_BYTES = 1_048_576;

/** Receives the data of one stream. */
export interface StreamListener {
  readonly onData: (bytes: Buffer, start: number, end: number) => void;
  /** The stream ended with this HTTP/2 error code, 0 for none. */
  readonly onEnd: (code: number) => void;
}

export interface Http2ConnectionOptions {
  readonly url: string;
  /** Local loopback address, because the service has limits per client address. */
  readonly localAddress?: string | undefined;
  /** Flow-control window of each stream until `openWindow`. No limit unless given. */
  readonly streamWindow?: number | undefined;
  readonly onClose: (reason: Error) => void;
}

/**
 * The part of cleartext HTTP/2 that a load generator needs, on a plain socket: requests are prebuilt frames, and
 * of responses only DATA is parsed. Node's own client needs as much CPU time as the servers under test. Requests
 * in flight stay below 64 KB, so the server's window is never exhausted.
 */
export class Http2Connection {
  readonly #socket: Socket;
  readonly #streams = new Map<number, StreamListener>();
  readonly #authority: string;
  readonly #onClose: (reason: Error) => void;
  #nextStream = 1;
  #rest: Buffer | undefined;
  #received = 0;
  #isClosed = false;

  constructor({ url, localAddress, streamWindow = WINDOW_MAX, onClose }: Http2ConnectionOptions) {
    const { hostname, port, host } = new URL(url);
    this.#authority = host;
    this.#onClose = onClose;
    this.#socket = connect({
      host: hostname,
      port: Number(port),
      noDelay: true,
      ...(localAddress !== undefined && { localAddress }),
      onread: {
        buffer: SHARED_BUFFER,
        callback: (length) => {
          this.#read(SHARED_BUFFER, length);
          return true;
        },
      },
    });
    this.#socket.on("error", (error) => this.#closed(error));
    this.#socket.on("close", () => this.#closed(new Error(`${url} has closed the connection`)));
    this.#socket.write(
      Buffer.concat([
        PREFACE,
        // With an empty dynamic table, the server's header blocks are independent and can be skipped.
        settings([
          [SETTING.headerTableSize, 0],
          [SETTING.enablePush, 0],
          [SETTING.initialWindowSize, streamWindow],
        ]),
        windowUpdate(0, WINDOW_MAX - WINDOW_DEFAULT),
      ]),
    );
  }

  /** Whether the connection has ended: then a request would have no response. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** The header block of a gRPC call, for `request`. */
  grpcHead(path: string): Buffer {
    return headerBlock([
      [":method", "POST"],
      [":scheme", "http"],
      [":path", path],
      [":authority", this.#authority],
      ["content-type", "application/grpc"],
      ["te", "trailers"],
    ]);
  }

  /** Sends a call with a single request message. Returns its stream. */
  request(head: Buffer, body: Buffer, listener: StreamListener): number {
    const stream = this.#nextStream;
    this.#nextStream += 2;
    this.#streams.set(stream, listener);
    this.#socket.cork();
    this.#socket.write(frame(FRAME.headers, FLAG.endHeaders, stream, head));
    this.#socket.write(frame(FRAME.data, FLAG.endStream, stream, body));
    process.nextTick(() => this.#socket.uncork());
    return stream;
  }

  /** Removes the limit of the window of a stream. */
  openWindow(stream: number): void {
    this.#socket.write(windowUpdate(stream, WINDOW_MAX - WINDOW_DEFAULT));
  }

  close(): void {
    this.#isClosed = true;
    this.#socket.destroy();
  }

  #closed(reason: Error): void {
    if (!this.#isClosed) {
      this.#isClosed = true;
      this.#socket.destroy();
      this.#onClose(reason);
    }
  }

  #read(bytes: Buffer, length: number): void {
    const whole =
      this.#rest === undefined
        ? bytes.subarray(0, length)
        : Buffer.concat([this.#rest, bytes.subarray(0, length)]);
    this.#rest = undefined;
    let at = 0;
    while (whole.length - at >= FRAME_HEAD_BYTES) {
      const end = at + FRAME_HEAD_BYTES + whole.readUIntBE(at, 3);
      if (end > whole.length) {
        break;
      }
      this.#frame(whole, at, end);
      at = end;
    }
    if (at < whole.length) {
      this.#rest = Buffer.from(whole.subarray(at));
    }
  }

  #frame(bytes: Buffer, at: number, end: number): void {
    const [type, flags = 0] = [bytes[at + 3], bytes[at + 4]];
    const stream = bytes.readUInt32BE(at + 5) & WINDOW_MAX;
    const payload = at + FRAME_HEAD_BYTES;
    const isLast = (type === FRAME.data || type === FRAME.headers) && (flags & FLAG.endStream) !== 0;
    if (type === FRAME.data) {
      if ((flags & FLAG.padded) !== 0) {
        throw new Error("The server pads its frames, which this client does not support");
      }
      this.#refill(end - payload);
      this.#streams.get(stream)?.onData(bytes, payload, end);
    } else if (type === FRAME.settings && (flags & FLAG.ack) === 0) {
      this.#socket.write(frame(FRAME.settings, FLAG.ack, 0, NOTHING));
    } else if (type === FRAME.ping && (flags & FLAG.ack) === 0) {
      this.#socket.write(frame(FRAME.ping, FLAG.ack, 0, bytes.subarray(payload, end)));
    } else if (type === FRAME.reset) {
      this.#end(stream, bytes.readUInt32BE(payload));
    } else if (type === FRAME.goAway) {
      this.#closed(new Error(`The server sent GOAWAY with code ${bytes.readUInt32BE(payload + 4)}`));
    }
    if (isLast) {
      this.#end(stream, 0);
    }
  }

  /** Only DATA counts. A window above the maximum is a connection error (RFC 9113, section 6.9.1). */
  #refill(bytes: number): void {
    this.#received += bytes;
    if (this.#received >= WINDOW_REFILL_BYTES) {
      this.#socket.write(windowUpdate(0, this.#received));
      this.#received = 0;
    }
  }

  #end(stream: number, code: number): void {
    const listener = this.#streams.get(stream);
    this.#streams.delete(stream);
    listener?.onEnd(code);
  }
}

/** Shared by all connections: bytes are processed before the next read. */
const SHARED_BUFFER = Buffer.allocUnsafe(256 * 1024);
const NOTHING = Buffer.alloc(0);

function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(FRAME_HEAD_BYTES + payload.length);
  bytes.writeUIntBE(payload.length, 0, 3);
  bytes[3] = type;
  bytes[4] = flags;
  bytes.writeUInt32BE(stream, 5);
  bytes.set(payload, FRAME_HEAD_BYTES);
  return bytes;
}

function settings(pairs: readonly (readonly [number, number])[]): Buffer {
  const payload = Buffer.alloc(6 * pairs.length);
  for (const [index, [id, value]] of pairs.entries()) {
    payload.writeUInt16BE(id, 6 * index);
    payload.writeUInt32BE(value, 6 * index + 2);
  }
  return frame(FRAME.settings, 0, 0, payload);
}

function windowUpdate(stream: number, bytes: number): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt32BE(bytes);
  return frame(FRAME.windowUpdate, 0, stream, payload);
}

/** HPACK literals without indexing and Huffman coding (RFC 7541, section 6.2.2), each shorter than 127 bytes. */
function headerBlock(fields: readonly (readonly [string, string])[]): Buffer {
  return Buffer.concat(
    fields.map(([name, value]) =>
      Buffer.concat([
        Buffer.from([0, name.length]),
        Buffer.from(name, "latin1"),
        Buffer.from([value.length]),
        Buffer.from(value, "latin1"),
      ]),
    ),
  );
}
