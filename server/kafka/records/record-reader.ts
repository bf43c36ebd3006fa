import { Cursor } from "./varint.ts";

/** A larger record is read without its value and headers. Four times what a dead letter can hold by default. */
const RECORD_BYTES_MAX = 4 * 1024 * 1024;
/** The part of an oversized record that is read: attributes, timestamp, offset, and the start of the key. */
const OVERSIZED_PREFIX_BYTES = 1_024;
const VARINT_BYTES_MAX = 5;

/** A record's bytes. Of an oversized one, the first of them, and the size of all. */
export interface RawRecord {
  readonly bytes: Buffer;
  readonly oversizedBytes?: number;
}

/** Splits a sequence of chunks into records. A record that extends over more than one chunk is copied. */
export class RecordReader {
  readonly #chunks: AsyncGenerator<Buffer>;
  #current = new Cursor(Buffer.alloc(0));

  constructor(chunks: AsyncGenerator<Buffer>) {
    this.#chunks = chunks;
  }

  /** The next record if the current chunk contains all of it. */
  tryNext(): RawRecord | undefined {
    const { at, remaining } = this.#current;
    if (remaining >= VARINT_BYTES_MAX) {
      const length = this.#current.varint();
      if (length <= RECORD_BYTES_MAX && length <= this.#current.remaining) {
        return { bytes: this.#current.take(length) };
      }
      this.#current.at = at;
    }
    return undefined;
  }

  async next(): Promise<RawRecord> {
    const length = await this.#varint();
    if (length <= RECORD_BYTES_MAX) {
      return { bytes: await this.#take(length) };
    }
    const bytes = await this.#take(OVERSIZED_PREFIX_BYTES);
    await this.#skip(length - OVERSIZED_PREFIX_BYTES);
    return { bytes, oversizedBytes: length };
  }

  async #varint(): Promise<number> {
    while (this.#current.remaining < VARINT_BYTES_MAX) {
      const { bytes, at } = this.#current;
      const next = await this.#chunks.next();
      if (next.done === true) {
        break;
      }
      this.#current = new Cursor(Buffer.concat([bytes.subarray(at), next.value]));
    }
    return this.#current.varint();
  }

  async #take(length: number): Promise<Buffer> {
    if (length < 0 || this.#current.remaining >= length) {
      return this.#current.take(length);
    }
    const parts = [this.#current.take(this.#current.remaining)];
    for (let missing = length - (parts[0]?.length ?? 0); missing > 0; ) {
      const chunk = await this.#nextChunk(missing);
      const part = chunk.subarray(0, missing);
      this.#current = new Cursor(chunk, part.length);
      parts.push(part);
      missing -= part.length;
    }
    return Buffer.concat(parts, length);
  }

  async #skip(length: number): Promise<void> {
    for (let missing = length; ; ) {
      const skipped = Math.min(missing, this.#current.remaining);
      this.#current.skip(skipped);
      missing -= skipped;
      if (missing === 0) {
        return;
      }
      this.#current = new Cursor(await this.#nextChunk(missing));
    }
  }

  async #nextChunk(missing: number): Promise<Buffer> {
    const { done, value } = await this.#chunks.next();
    if (done === true) {
      throw new Error(`the batch ends ${missing} bytes before its last record`);
    }
    return value;
  }
}
