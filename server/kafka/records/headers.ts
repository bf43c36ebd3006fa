import { ByteWriter, Cursor } from "./varint.ts";

/** One header. Kafka allows a null value, and repeated names. */
interface Header {
  readonly name: Buffer;
  readonly value: Buffer | null;
}

/** A header's name and value as a caller gives them. */
export type HeaderEntry = readonly [name: string, value: string | Buffer | null];

/**
 * The headers of a record in Kafka's encoding. They stay encoded, because they are foreign data: a record of a megabyte
 * can have 350,000 of them, with any bytes as names. Looking one up takes time proportional to their length, and a copy
 * has the same bytes.
 */
export class RecordHeaders {
  static readonly NONE = new RecordHeaders(0, Buffer.alloc(0));

  readonly count: number;
  /** The encoded headers, without their count. */
  readonly bytes: Buffer;

  constructor(count: number, bytes: Buffer) {
    this.count = count;
    this.bytes = bytes;
  }

  static of(entries: Iterable<HeaderEntry>): RecordHeaders {
    const writer = new ByteWriter();
    let count = 0;
    for (const [name, value] of entries) {
      writer.nullable(name).nullable(value);
      count += 1;
    }
    return new RecordHeaders(count, writer.written);
  }

  /** Throws if the bytes do not contain `count` headers. */
  validate(): void {
    const cursor = new Cursor(this.bytes);
    for (let index = 0; index < this.count; index++) {
      cursor.skip(cursor.varint());
      cursor.skipNullable();
    }
  }

  /** The value of the last header with this name, as in Kafka's Java client; `undefined` if there is none. */
  last(name: string): Buffer | null | undefined {
    const wanted = Buffer.from(name);
    const cursor = new Cursor(this.bytes);
    let valueAt = -1;
    for (let index = 0; index < this.count; index++) {
      if (skipName(cursor, wanted, true)) {
        valueAt = cursor.at;
      }
      cursor.skipNullable();
    }
    return valueAt === -1 ? undefined : new Cursor(this.bytes, valueAt).nullable();
  }

  /** The last value as text, cut to `bytesMax` bytes; `undefined` if there is none or it is null. */
  text(name: string, bytesMax = 1_024): string | undefined {
    return this.last(name)?.subarray(0, bytesMax).toString();
  }

  /** A copy without the headers whose name starts with `prefix`. */
  without(prefix: string): RecordHeaders {
    const start = Buffer.from(prefix);
    const kept = new ByteWriter();
    const cursor = new Cursor(this.bytes);
    let count = 0;
    let from = 0;
    for (let index = 0; index < this.count; index++) {
      const at = cursor.at;
      const isDropped = skipName(cursor, start, false);
      cursor.skipNullable();
      if (isDropped) {
        kept.append(this.bytes.subarray(from, at));
        from = cursor.at;
      } else {
        count += 1;
      }
    }
    kept.append(this.bytes.subarray(from));
    return new RecordHeaders(count, kept.written);
  }

  /** A copy with further headers at the end. */
  with(entries: Iterable<HeaderEntry>): RecordHeaders {
    const added = RecordHeaders.of(entries);
    return new RecordHeaders(this.count + added.count, Buffer.concat([this.bytes, added.bytes]));
  }

  *[Symbol.iterator](): Generator<Header> {
    const cursor = new Cursor(this.bytes);
    for (let index = 0; index < this.count; index++) {
      yield { name: cursor.take(cursor.varint()), value: cursor.nullable() };
    }
  }
}

/** Moves past a name. True if it starts with `wanted`, or with `whole` if it is equal. Makes no view of each name. */
function skipName(cursor: Cursor, wanted: Buffer, whole: boolean): boolean {
  const length = cursor.varint();
  const { bytes, at } = cursor;
  cursor.skip(length);
  if (length < wanted.length || (whole && length !== wanted.length)) {
    return false;
  }
  return bytes.compare(wanted, 0, wanted.length, at, at + wanted.length) === 0;
}
