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

/** Appends encoded values to a list of chunks, which `concat` joins. */
export class ByteWriter {
  readonly #chunks: Buffer[] = [];
  #length = 0;

  get length(): number {
    return this.#length;
  }

  append(chunk: Buffer): this {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    return this;
  }

  varint(value: number): this {
    return this.append(encodeVarint((value << 1) ^ (value >> 31)));
  }

  varlong(value: bigint): this {
    const bytes: number[] = [];
    let rest = BigInt.asUintN(64, (value << 1n) ^ (value >> 63n));
    for (; rest > 0x7fn; rest >>= 7n) {
      bytes.push(Number(rest & 0x7fn) | 0x80);
    }
    bytes.push(Number(rest));
    return this.append(Buffer.from(bytes));
  }

  nullable(value: Buffer | null): this {
    return value === null ? this.varint(-1) : this.varint(value.length).append(value);
  }

  concat(): Buffer {
    return Buffer.concat(this.#chunks, this.#length);
  }
}

function encodeVarint(zigzag: number): Buffer {
  const bytes: number[] = [];
  let rest = zigzag >>> 0;
  for (; rest > 0x7f; rest >>>= 7) {
    bytes.push((rest & 0x7f) | 0x80);
  }
  bytes.push(rest);
  return Buffer.from(bytes);
}
