import { PREFIX_BYTES } from "./framing.ts";

/** An encoded message that can be written to any number of streams, in every protocol. */
export class Frame {
  /** The envelope as a chunk of HTTP/1.1's chunked transfer coding. */
  readonly chunk: Buffer;
  readonly #start: number;
  readonly #end: number;

  constructor(message: Uint8Array) {
    const size = `${(PREFIX_BYTES + message.length).toString(16)}\r\n`;
    this.#start = size.length;
    this.#end = size.length + PREFIX_BYTES + message.length;
    // Not from the shared pool: a stalled reader would keep the whole pool slab alive.
    this.chunk = Buffer.allocUnsafeSlow(this.#end + 2);
    this.chunk.write(size, "latin1");
    this.chunk[this.#start] = 0;
    this.chunk.writeUInt32BE(message.length, this.#start + 1);
    this.chunk.set(message, this.#start + PREFIX_BYTES);
    this.chunk.write("\r\n", this.#end, "latin1");
  }

  /** The message in its envelope. */
  get envelope(): Buffer {
    return this.chunk.subarray(this.#start, this.#end);
  }
}
