import { copyWithin } from "./snappy.ts";

const FRAME_MAGIC = 0x184d2204;
const BLOCK_BYTES_MAX_BY_ID: Readonly<Record<number, number>> = {
  4: 64 * 1024,
  5: 256 * 1024,
  6: 1024 * 1024,
  7: 4 * 1024 * 1024,
};
const UNCOMPRESSED_BLOCK = 0x80000000;
const MATCH_BYTES_MIN = 4;

/**
 * Decompresses an LZ4 frame. The header checksum is not verified, because Kafka has a checksum over the whole batch.
 * Throws if the bytes are not a valid frame, or if the output would be larger than `bytesMax`.
 *
 * See https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md and lz4_Block_format.md.
 */
export function decompressLz4Frame(bytes: Buffer, bytesMax: number): Buffer {
  if (bytes.length < 7 || bytes.readUInt32LE(0) !== FRAME_MAGIC) {
    throw new Error("not an LZ4 frame");
  }
  const flags = bytes.readUInt8(4);
  const blockBytesMax = BLOCK_BYTES_MAX_BY_ID[(bytes.readUInt8(5) >> 4) & 7];
  if (flags >> 6 !== 1 || blockBytesMax === undefined) {
    throw new Error("an LZ4 frame of an unknown version or block size");
  }
  const blockChecksumBytes = flags & 0x10 ? 4 : 0;
  let at = 7 + (flags & 0x08 ? 8 : 0) + (flags & 0x01 ? 4 : 0);
  // A block may reference the 64 KB before it, so all blocks are written into one buffer.
  let out = Buffer.allocUnsafe(Math.min(bytesMax, Math.max(blockBytesMax, bytes.length * 4)));
  let written = 0;
  for (let size = bytes.readUInt32LE(at); size !== 0; size = bytes.readUInt32LE(at)) {
    at += 4;
    const length = size % UNCOMPRESSED_BLOCK;
    if (at + length > bytes.length) {
      throw new Error(`an LZ4 block of ${length} bytes is truncated`);
    }
    const block = bytes.subarray(at, at + length);
    if (written + blockBytesMax > out.length) {
      out = Buffer.concat([out.subarray(0, written)], Math.min(bytesMax, (written + blockBytesMax) * 2));
    }
    const end = Math.min(out.length, written + blockBytesMax);
    if (size >= UNCOMPRESSED_BLOCK) {
      if (written + length > end) {
        throw tooLarge(bytesMax);
      }
      written += block.copy(out, written);
    } else {
      written = decompressBlock(block, out, written, end, bytesMax);
    }
    at += length + blockChecksumBytes;
  }
  return out.subarray(0, written);
}

/** Writes from `start` on, at most up to `end`; returns the end of what was written. */
function decompressBlock(block: Buffer, out: Buffer, start: number, end: number, bytesMax: number): number {
  let at = 0;
  let written = start;
  const readLength = (nibble: number): number => {
    let length = nibble;
    if (nibble === 15) {
      let byte: number;
      do {
        byte = block.readUInt8(at);
        at += 1;
        length += byte;
      } while (byte === 255);
    }
    return length;
  };
  while (at < block.length) {
    const token = block.readUInt8(at);
    at += 1;
    const literals = readLength(token >> 4);
    if (at + literals > block.length) {
      throw new Error("LZ4 literals are truncated");
    }
    if (written + literals > end) {
      throw tooLarge(bytesMax);
    }
    block.copy(out, written, at, at + literals);
    at += literals;
    written += literals;
    // The last sequence has no match.
    if (at === block.length) {
      break;
    }
    const offset = block.readUInt16LE(at);
    at += 2;
    const count = readLength(token & 15) + MATCH_BYTES_MIN;
    if (written + count > end) {
      throw tooLarge(bytesMax);
    }
    copyWithin(out, written, offset, count, end);
    written += count;
  }
  return written;
}

function tooLarge(bytesMax: number): Error {
  return new Error(`an LZ4 block exceeds its frame's block size, or the output exceeds ${bytesMax} bytes`);
}
