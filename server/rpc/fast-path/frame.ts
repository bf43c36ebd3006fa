import { PREFIX_BYTES } from "./framing.ts";

/** A message as it goes out, for every protocol and any number of readers. */
export class Frame {
  /** In its envelope, as a chunk of HTTP/1.1. */
  readonly chunk: Buffer;
  readonly #start: number;
  readonly #end: number;

  constructor(message: Uint8Array) {
    const size = `${(PREFIX_BYTES + message.length).toString(16)}\r\n`;
    this.#start = size.length;
    this.#end = size.length + PREFIX_BYTES + message.length;
    // Not of the pool, which a reader that stops would hold with it.
    this.chunk = Buffer.allocUnsafeSlow(this.#end + 2);
    this.chunk.write(size, "latin1");
    this.chunk[this.#start] = 0;
    this.chunk.writeUInt32BE(message.length, this.#start + 1);
    this.chunk.set(message, this.#start + PREFIX_BYTES);
    this.chunk.write("\r\n", this.#end, "latin1");
  }

  /** In its envelope alone. */
  get envelope(): Buffer {
    return this.chunk.subarray(this.#start, this.#end);
  }
}
