/** Header of the Java client's framing. It is followed by snappy blocks, each preceded by its length, big-endian. */
const XERIAL_MAGIC = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0x00]);
const XERIAL_HEADER_BYTES = 16;
/** Output between two steps of a decompression. */
const STEP_BYTES = 64 * 1024;
/** Up to this length a loop is faster than a native copy. */
const SHORT_COPY_BYTES = 32;

/**
 * Decompresses snappy, raw as librdkafka writes it or in the Java client's framing. Yields `undefined` after each step,
 * so that the caller can interrupt it, and each block's content. Throws if the bytes are not valid snappy, or if a block
 * would be larger than `bytesMax`.
 *
 * See https://github.com/google/snappy/blob/main/format_description.txt
 */
export function* decompressSnappy(bytes: Buffer, bytesMax: number): Generator<Buffer | undefined, void> {
  if (!bytes.subarray(0, XERIAL_MAGIC.length).equals(XERIAL_MAGIC)) {
    yield yield* decompressBlock(bytes, bytesMax);
    return;
  }
  for (let at = XERIAL_HEADER_BYTES; at < bytes.length; ) {
    const length = bytes.readUInt32BE(at);
    at += 4;
    if (at + length > bytes.length) {
      throw new Error(`a snappy block of ${length} bytes is truncated`);
    }
    yield yield* decompressBlock(bytes.subarray(at, at + length), bytesMax);
    at += length;
  }
}

function* decompressBlock(bytes: Buffer, bytesMax: number): Generator<undefined, Buffer> {
  const { length, at: start } = readLength(bytes);
  if (length > bytesMax) {
    throw new Error(`snappy output of ${length} bytes exceeds the maximum of ${bytesMax}`);
  }
  const out = Buffer.allocUnsafe(length);
  let written = 0;
  let nextStep = STEP_BYTES;
  let at = start;
  while (at < bytes.length) {
    const tag = bytes.readUInt8(at);
    at += 1;
    const kind = tag & 3;
    if (kind === 0) {
      const short = tag >> 2;
      const lengthBytes = Math.max(0, short - 59);
      const count = (lengthBytes === 0 ? short : bytes.readUIntLE(at, lengthBytes)) + 1;
      at += lengthBytes;
      if (at + count > bytes.length || written + count > length) {
        throw new Error("a snappy literal is truncated");
      }
      bytes.copy(out, written, at, at + count);
      at += count;
      written += count;
    } else {
      const offsetBytes = kind === 1 ? 1 : kind === 2 ? 2 : 4;
      const low = bytes.readUIntLE(at, offsetBytes);
      const offset = kind === 1 ? ((tag & 0xe0) << 3) | low : low;
      const count = kind === 1 ? ((tag >> 2) & 7) + 4 : (tag >> 2) + 1;
      at += offsetBytes;
      copyWithin(out, written, offset, count, length);
      written += count;
    }
    if (written >= nextStep) {
      nextStep = written + STEP_BYTES;
      yield undefined;
    }
  }
  if (written !== length) {
    throw new Error(`snappy output of ${written} bytes instead of ${length}`);
  }
  return out;
}

/** The uncompressed length at the start: a varint of up to 32 bits. */
function readLength(bytes: Buffer): { length: number; at: number } {
  let length = 0;
  for (let at = 0; at < 5; at++) {
    const byte = bytes.readUInt8(at);
    length += (byte & 0x7f) * 2 ** (7 * at);
    if (byte < 0x80) {
      return { length, at: at + 1 };
    }
  }
  throw new Error("the length of a snappy block exceeds 32 bits");
}

/** Copies `count` bytes from `offset` bytes back. Source and target may overlap, which repeats a pattern. */
export function copyWithin(out: Buffer, at: number, offset: number, count: number, limit: number): void {
  if (offset === 0 || offset > at || at + count > limit) {
    throw new Error(`a copy of ${count} bytes from ${offset} bytes back, at byte ${at} of ${limit}`);
  }
  if (count <= SHORT_COPY_BYTES) {
    for (let i = at; i < at + count; i++) {
      out[i] = out[i - offset] ?? 0;
    }
    return;
  }
  const end = at + count;
  let to = at;
  // The distance to the source doubles with each copy, since the pattern repeats.
  for (let distance = offset; to < end; distance *= 2) {
    const length = Math.min(distance, end - to);
    out.copyWithin(to, at - offset, at - offset + length);
    to += length;
  }
}
