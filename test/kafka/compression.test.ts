import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { decompressLz4Frame } from "../../server/kafka/records/lz4.ts";
import { decompressSnappy } from "../../server/kafka/records/snappy.ts";

const TEXT = Buffer.from("Wikipedia is a free, web-based, collaborative, multilingual encyclopedia project.");

function all(chunks: Iterable<Buffer | undefined>): Buffer {
  return Buffer.concat([...chunks].filter((chunk) => chunk !== undefined));
}

describe("the decompressors", () => {
  it("read a snappy block, raw and in the Java client's framing", () => {
    const block = Buffer.concat([Buffer.from([TEXT.length, 60 << 2, TEXT.length - 1]), TEXT]);
    assert.deepEqual(all(decompressSnappy(block, 1_000)), TEXT);
    const frame = Buffer.alloc(20);
    frame.write("\x82SNAPPY\x00", "latin1");
    frame.writeUInt32BE(block.length, 16);
    assert.deepEqual(all(decompressSnappy(Buffer.concat([frame, block]), 1_000)), TEXT);
    const pattern = Buffer.from([10, 1 << 2, 0x61, 0x62, (7 << 2) | 2, 2, 0]);
    assert.equal(all(decompressSnappy(pattern, 1_000)).toString(), "ababababab");
  });

  it("repeat a long pattern", () => {
    // One literal "abc", and a match that repeats it to 1,000 bytes.
    const block = Buffer.concat([
      Buffer.from([0x3f, 0x61, 0x62, 0x63, 3, 0]),
      matchLength(997),
      Buffer.from([0]),
    ]);
    const header = Buffer.from("04224d18604000", "hex");
    const size = Buffer.alloc(4);
    size.writeUInt32LE(block.length);
    const frame = Buffer.concat([header, size, block, Buffer.alloc(4)]);
    assert.equal(all(decompressLz4Frame(frame)).toString(), "abc".repeat(334).slice(0, 1_000));
  });

  it("reject truncated input, invalid references, and output that is too large", () => {
    const wrong: [string, () => Iterable<Buffer | undefined>][] = [
      ["empty snappy", () => decompressSnappy(Buffer.alloc(0), 10)],
      ["a truncated literal", () => decompressSnappy(Buffer.from([5, 4 << 2, 0x61]), 10)],
      [
        "a copy from before the start",
        () => decompressSnappy(Buffer.from([8, 0, 0x61, (3 << 2) | 2, 9, 0]), 10),
      ],
      ["a copy with offset 0", () => decompressSnappy(Buffer.from([8, 0, 0x61, (3 << 2) | 2, 0, 0]), 10)],
      ["fewer bytes than announced", () => decompressSnappy(Buffer.from([5, 0, 0x61]), 10)],
      ["more bytes than allowed", () => decompressSnappy(Buffer.from([11, 0, 0x61]), 10)],
      ["no LZ4 frame", () => decompressLz4Frame(Buffer.alloc(16))],
      [
        "an LZ4 frame without an end",
        () => decompressLz4Frame(Buffer.from("04224d1840400000000000", "hex").subarray(0, 8)),
      ],
      [
        "an LZ4 match from before the start",
        () => decompressLz4Frame(Buffer.from("04224d18604000040000001061050000000000", "hex")),
      ],
    ];
    for (const [name, decompress] of wrong) {
      assert.throws(() => all(decompress()), Error, name);
    }
  });
});

/** The bytes after a token whose match length is 15, for a match of `length` bytes. */
function matchLength(length: number): Buffer {
  const rest = length - 4 - 15;
  return Buffer.from([...new Array(Math.floor(rest / 255)).fill(255), rest % 255]);
}
