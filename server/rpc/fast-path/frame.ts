import { PREFIX_BYTES } from "./framing.ts";

/** An encoded message that can be written to any number of streams, in every protocol. */
export class Frame {
  /** The envelope as a chunk of HTTP/1.1's chunked transfer coding. */
  readonly chunk: Buffer;
  /** The message in its envelope. */
  readonly envelope: Buffer;

  constructor(message: Uint8Array) {
    const size = `${(PREFIX_BYTES + message.length).toString(16)}\r\n`;
    const start = size.length;
    const end = start + PREFIX_BYTES + message.length;
    // Not from the shared pool: a stalled reader would keep the whole pool slab alive.
    this.chunk = Buffer.allocUnsafeSlow(end + 2);
    this.chunk.write(size, "latin1");
    this.chunk[start] = 0;
    this.chunk.writeUInt32BE(message.length, start + 1);
    this.chunk.set(message, start + PREFIX_BYTES);
    this.chunk.write("\r\n", end, "latin1");
    this.envelope = this.chunk.subarray(start, end);
  }
}
