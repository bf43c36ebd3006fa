import { ByteWriter, Cursor } from "../records/varint.ts";

/** Reads a response of Kafka's protocol, see https://kafka.apache.org/protocol#protocol_types. */
export class ResponseReader extends Cursor {
  int8(): number {
    return this.take(1).readInt8(0);
  }

  int16(): number {
    return this.take(2).readInt16BE(0);
  }

  int32(): number {
    return this.take(4).readInt32BE(0);
  }

  int64(): bigint {
    return this.take(8).readBigInt64BE(0);
  }

  nullableString(): string | null {
    const length = this.int16();
    return length === -1 ? null : this.take(length).toString();
  }

  string(): string {
    return this.nullableString() ?? "";
  }

  /** Bytes with their length as INT32 in front. Null is returned as empty. */
  int32Bytes(): Buffer {
    const length = this.int32();
    return length === -1 ? Buffer.alloc(0) : this.take(length);
  }

  array<T>(read: (reader: this) => T): T[] {
    return this.#items(this.int32(), read);
  }

  /** The length is one more than the number of items; 0 means null. */
  compactArray<T>(read: (reader: this) => T): T[] {
    return this.#items(this.unsignedVarint() - 1, read);
  }

  compactNullableString(): string | null {
    const length = this.unsignedVarint() - 1;
    return length === -1 ? null : this.take(length).toString();
  }

  /** In hexadecimal digits. */
  uuid(): string {
    return this.take(16).toString("hex");
  }

  skipTags(): void {
    for (let count = this.unsignedVarint(); count > 0; count--) {
      this.unsignedVarint();
      this.skip(this.unsignedVarint());
    }
  }

  unsignedVarint(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.take(1).readUInt8(0);
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) {
        return value;
      }
    }
    throw new RangeError("Invalid unsigned varint");
  }

  #items<T>(count: number, read: (reader: this) => T): T[] {
    const items: T[] = [];
    for (let index = 0; index < count; index++) {
      items.push(read(this));
    }
    return items;
  }
}

/** Writes a request of Kafka's protocol. */
export class RequestWriter extends ByteWriter {
  string(value: string | null): this {
    if (value === null) {
      return this.int16(-1);
    }
    const bytes = Buffer.from(value);
    return this.int16(bytes.length).append(bytes);
  }

  int32Bytes(bytes: Buffer): this {
    return this.int32(bytes.length).append(bytes);
  }

  array<T>(items: readonly T[], write: (writer: this, item: T) => void): this {
    this.int32(items.length);
    for (const item of items) {
      write(this, item);
    }
    return this;
  }

  compactString(value: string): this {
    const bytes = Buffer.from(value);
    return this.unsignedVarint(bytes.length + 1).append(bytes);
  }

  noTags(): this {
    return this.unsignedVarint(0);
  }
}
