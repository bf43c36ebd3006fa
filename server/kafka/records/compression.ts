import { createGunzip, createZstdDecompress } from "node:zlib";
import type { LoopBudget } from "../ingest/loop-budget.ts";
import { decompressLz4Frame } from "./lz4.ts";
import { decompressSnappy } from "./snappy.ts";

/**
 * Maximum size of a decompressed batch: 64 times a broker's default `max.message.bytes`. Without a bound, a batch of a
 * megabyte could decompress to gigabytes.
 */
export const DECOMPRESSED_BYTES_MAX = 64 * 1024 * 1024;

const CHUNK_BYTES = 64 * 1024;

/** The codecs by their number in a batch's attributes. 0 is no compression. */
const CODECS = ["none", "gzip", "snappy", "lz4", "zstd"] as const;
type Codec = (typeof CODECS)[number];

export function codecOf(attributes: number): Codec {
  const codec = CODECS[attributes & 7];
  if (codec === undefined) {
    throw new Error(`compressed with codec ${attributes & 7}, which this version does not support`);
  }
  return codec;
}

/**
 * Decompresses in chunks, at the reader's pace and within the turns of `budget`. Throws if the bytes are invalid or
 * decompress to more than `DECOMPRESSED_BYTES_MAX`.
 */
export async function* decompress(codec: Codec, bytes: Buffer, budget: LoopBudget): AsyncGenerator<Buffer> {
  let total = 0;
  try {
    for await (const chunk of chunksOf(codec, bytes, budget)) {
      total += chunk.length;
      if (total > DECOMPRESSED_BYTES_MAX) {
        throw new Error(`the output exceeds ${DECOMPRESSED_BYTES_MAX} bytes`);
      }
      yield chunk;
    }
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`A batch compressed with ${codec} cannot be read: ${reason}`, { cause });
  }
}

function chunksOf(codec: Codec, bytes: Buffer, budget: LoopBudget): AsyncIterable<Buffer> | Iterable<Buffer> {
  switch (codec) {
    case "none":
      return [bytes];
    case "gzip":
      return pipe(createGunzip({ chunkSize: CHUNK_BYTES }), bytes);
    case "zstd":
      return pipe(createZstdDecompress({ chunkSize: CHUNK_BYTES }), bytes);
    case "snappy":
      return inTurns(decompressSnappy(bytes, DECOMPRESSED_BYTES_MAX), budget);
    case "lz4":
      return inTurns(decompressLz4Frame(bytes), budget);
  }
}

/** zlib runs in the thread pool, and pauses while the chunks are not read. */
function pipe(
  stream: ReturnType<typeof createGunzip> | ReturnType<typeof createZstdDecompress>,
  bytes: Buffer,
): AsyncIterable<Buffer> {
  stream.end(bytes);
  return stream;
}

async function* inTurns(steps: Iterable<Buffer | undefined>, budget: LoopBudget): AsyncGenerator<Buffer> {
  for (const chunk of steps) {
    if (chunk !== undefined) {
      yield chunk;
    }
    if (budget.isSpent) {
      await budget.nextTurn();
    }
  }
}
