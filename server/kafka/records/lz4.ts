import { copyWithin } from "./snappy.ts";

const FRAME_MAGIC = 0x184d2204;
const BLOCK_BYTES_MAX_BY_ID: ReadonlyMap<number, number> = new Map([
  [4, 64 * 1024],
  [5, 256 * 1024],
  [6, 1024 * 1024],
  [7, 4 * 1024 * 1024],
]);
const UNCOMPRESSED_BLOCK = 0x80000000;
const MATCH_BYTES_MIN = 4;
/** A block may reference this many bytes before it. */
const WINDOW_BYTES = 64 * 1024;
/** Output between two steps of a decompression. */
const STEP_BYTES = 64 * 1024;

/**
 * Decompresses an LZ4 frame block by block. Yields `undefined` after each step, so that the caller can interrupt it, and
 * each block's content. The header checksum is not verified, because Kafka has a checksum over the whole batch. Throws
 * if the bytes are not a valid frame. The caller bounds the output.
 *
 * See https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md and lz4_Block_format.md.
 */
export function* decompressLz4Frame(bytes: Buffer): Generator<Buffer | undefined, void> {
  if (bytes.length < 7 || bytes.readUInt32LE(0) !== FRAME_MAGIC) {
    throw new Error("not an LZ4 frame");
  }
  const flags = bytes.readUInt8(4);
  const blockBytesMax = BLOCK_BYTES_MAX_BY_ID.get((bytes.readUInt8(5) >> 4) & 7);
  if (flags >> 6 !== 1 || blockBytesMax === undefined) {
    throw new Error("an LZ4 frame of an unknown version or block size");
  }
  const blockChecksumBytes = flags & 0x10 ? 4 : 0;
  let at = 7 + (flags & 0x08 ? 8 : 0) + (flags & 0x01 ? 4 : 0);
  let window: Buffer = Buffer.alloc(0);
  for (let size = bytes.readUInt32LE(at); size !== 0; size = bytes.readUInt32LE(at)) {
    at += 4;
    const length = size % UNCOMPRESSED_BLOCK;
    if (at + length > bytes.length) {
      throw new Error(`an LZ4 block of ${length} bytes is truncated`);
    }
    const block = bytes.subarray(at, at + length);
    const isCompressed = size < UNCOMPRESSED_BLOCK;
    if (!isCompressed && length > blockBytesMax) {
      throw tooLarge(blockBytesMax);
    }
    const out = Buffer.allocUnsafe(window.length + (isCompressed ? blockBytesMax : length));
    window.copy(out);
    const end = isCompressed
      ? yield* decompressBlock(block, out, window.length)
      : window.length + block.copy(out, window.length);
    yield out.subarray(window.length, end);
    window = out.subarray(Math.max(0, end - WINDOW_BYTES), end);
    at += length + blockChecksumBytes;
  }
}

/** Writes from `start` on, at most to the end of `out`; returns the end of what was written. */
function* decompressBlock(block: Buffer, out: Buffer, start: number): Generator<undefined, number> {
  let at = 0;
  let written = start;
  let nextStep = start + STEP_BYTES;
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
    if (written + literals > out.length) {
      throw tooLarge(out.length - start);
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
    if (written + count > out.length) {
      throw tooLarge(out.length - start);
    }
    copyWithin(out, written, offset, count, out.length);
    written += count;
    if (written >= nextStep) {
      nextStep = written + STEP_BYTES;
      yield undefined;
    }
  }
  return written;
}

function tooLarge(blockBytesMax: number): Error {
  return new Error(`an LZ4 block exceeds the frame's block size of ${blockBytesMax} bytes`);
}
