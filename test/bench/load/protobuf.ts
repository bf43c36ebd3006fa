// The part of protobuf's encoding that is needed to read a number out of many thousand messages per second. Tests with the
// generated code check the contents.

const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;

/** WatchStockResponse.stocks, Stock.version. */
const [STOCKS, STOCK_VERSION] = [1, 3];

/** A position in the bytes. */
class Cursor {
  readonly bytes: Buffer;
  at: number;

  constructor(bytes: Buffer, at: number) {
    this.bytes = bytes;
    this.at = at;
  }

  varint(): number {
    let value = 0;
    let factor = 1;
    for (;;) {
      const byte = this.bytes[this.at++] ?? 0;
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) {
        return value;
      }
      factor *= 0x80;
    }
  }

  skip(wireType: number): void {
    if (wireType === VARINT) {
      this.varint();
    } else if (wireType === BYTES) {
      const length = this.varint();
      this.at += length;
    } else if (wireType === FIXED64 || wireType === FIXED32) {
      this.at += wireType === FIXED64 ? 8 : 4;
    } else {
      throw new RangeError(`A message has wire type ${wireType}`);
    }
  }
}

/**
 * The highest version of the stocks in a WatchStockResponse between two offsets. 0 if there is none, such as in a
 * heartbeat.
 */
export function newestVersion(bytes: Buffer, start: number, end: number): number {
  const cursor = new Cursor(bytes, start);
  let newest = 0;
  while (cursor.at < end) {
    const tag = cursor.varint();
    if (tag >>> 3 !== STOCKS) {
      cursor.skip(tag & 7);
      continue;
    }
    const length = cursor.varint();
    const stockEnd = cursor.at + length;
    while (cursor.at < stockEnd) {
      const field = cursor.varint();
      if (field >>> 3 === STOCK_VERSION) {
        newest = Math.max(newest, cursor.varint());
      } else {
        cursor.skip(field & 7);
      }
    }
  }
  return newest;
}
