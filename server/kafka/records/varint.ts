/** Enough for most requests and headers. */
const INITIAL_BYTES = 128;

/** A position in a buffer. Reading past the end throws, so that truncated data never yields a value. */
export class Cursor {
  readonly bytes: Buffer;
  at: number;

  constructor(bytes: Buffer, at = 0) {
    this.bytes = bytes;
    this.at = at;
  }

  get remaining(): number {
    return this.bytes.length - this.at;
  }

  /** A zigzag varint of up to 32 bits, as Kafka encodes lengths and counts. */
  varint(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.bytes[this.at];
      if (byte === undefined) {
        break;
      }
      this.at += 1;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) {
        return (value >>> 1) ^ -(value & 1);
      }
    }
    throw new RangeError(`Invalid varint at byte ${this.at} of ${this.bytes.length}`);
  }

  /** A zigzag varint of up to 64 bits. */
  varlong(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.bytes[this.at];
      if (byte === undefined) {
        break;
      }
      this.at += 1;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) {
        return BigInt.asIntN(64, (value >> 1n) ^ -(value & 1n));
      }
    }
    throw new RangeError(`Invalid varlong at byte ${this.at} of ${this.bytes.length}`);
  }

  skip(length: number): void {
    if (length < 0 || length > this.remaining) {
      throw new RangeError(`${length} bytes at byte ${this.at} exceed the end at ${this.bytes.length}`);
    }
    this.at += length;
  }

  /** A view of the next `length` bytes. */
  take(length: number): Buffer {
    const start = this.at;
    this.skip(length);
    return this.bytes.subarray(start, this.at);
  }

  /** Bytes with their length as varint in front, where -1 means null. */
  nullable(): Buffer | null {
    const length = this.varint();
    return length === -1 ? null : this.take(length);
  }

  skipNullable(): void {
    const length = this.varint();
    this.skip(length === -1 ? 0 : length);
  }
}

/** Appends encoded values to a buffer that grows. */
export class ByteWriter {
  #bytes: Buffer;
  #length = 0;

  /** `capacity`: bytes to reserve. */
  constructor(capacity = INITIAL_BYTES) {
    this.#bytes = Buffer.allocUnsafe(capacity);
  }

  get length(): number {
    return this.#length;
  }

  /** What was written, as a view. It is valid until `clear`. */
  get written(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }

  /** Removes what was written and keeps the memory. */
  clear(): this {
    this.#length = 0;
    return this;
  }

  append(chunk: Buffer): this {
    const at = this.#reserve(chunk.length);
    chunk.copy(this.#bytes, at);
    return this;
  }

  int8(value: number): this {
    const at = this.#reserve(1);
    this.#bytes[at] = value;
    return this;
  }

  int16(value: number): this {
    const at = this.#reserve(2);
    this.#bytes.writeInt16BE(value, at);
    return this;
  }

  int32(value: number): this {
    const at = this.#reserve(4);
    this.#bytes.writeInt32BE(value, at);
    return this;
  }

  int64(value: bigint): this {
    const at = this.#reserve(8);
    this.#bytes.writeBigInt64BE(value, at);
    return this;
  }

  unsignedVarint(value: number): this {
    let rest = value >>> 0;
    for (; rest > 0x7f; rest >>>= 7) {
      this.int8((rest & 0x7f) | 0x80);
    }
    return this.int8(rest);
  }

  varint(value: number): this {
    return this.unsignedVarint((value << 1) ^ (value >> 31));
  }

  varlong(value: bigint): this {
    let rest = BigInt.asUintN(64, (value << 1n) ^ (value >> 63n));
    for (; rest > 0x7fn; rest >>= 7n) {
      this.int8(Number(rest & 0x7fn) | 0x80);
    }
    return this.int8(Number(rest));
  }

  /** Bytes, or text in UTF-8, with their length as varint in front. */
  nullable(value: Buffer | string | null): this {
    if (value === null) {
      return this.varint(-1);
    }
    if (typeof value !== "string") {
      return this.varint(value.length).append(value);
    }
    const length = Buffer.byteLength(value);
    this.varint(length);
    const at = this.#reserve(length);
    this.#bytes.write(value, at, "utf8");
    return this;
  }

  /** Makes room for `length` bytes, counts them as written, and returns the position of the first. */
  #reserve(length: number): number {
    const at = this.#length;
    this.#length += length;
    if (this.#length > this.#bytes.length) {
      const grown = Buffer.allocUnsafe(Math.max(this.#length, 2 * this.#bytes.length));
      this.#bytes.copy(grown, 0, 0, at);
      this.#bytes = grown;
    }
    return at;
  }
}
