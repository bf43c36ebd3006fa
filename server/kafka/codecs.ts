import { promisify } from "node:util";
import { gunzip, gzip, type ZlibOptions, type ZstdOptions, zstdDecompress } from "node:zlib";
import kafkajs from "kafkajs";
import { decompressLz4Frame } from "./lz4.ts";
import { decompressSnappy } from "./snappy.ts";

/**
 * The most that one batch of records may grow to when it is decompressed: 64 times what a broker takes by default.
 * Without a bound, one batch of a megabyte could fill the memory.
 */
export const DECOMPRESSED_BYTES_MAX = 64 * 1024 * 1024;

// Node does not find these two among the names that a CommonJS module exports.
const { CompressionCodecs, CompressionTypes } = kafkajs;

/** Of 1 to 9. The best of zlib's quick levels: the default, 6, takes four times as long for a sixth fewer bytes. */
const GZIP_LEVEL = 3;

const compressGzip: (bytes: Buffer, options: ZlibOptions) => Promise<Buffer> = promisify(gzip);
const decompressGzip = promisify(gunzip);
const decompressZstd: (bytes: Buffer, options: ZstdOptions) => Promise<Buffer> = promisify(zstdDecompress);

/** As kafkajs hands it over: an encoder whose bytes are to be compressed. */
interface Encoder {
  readonly buffer: Buffer;
}

/** A batch that could not be decompressed. kafkajs reads no further in this partition until somebody acts. */
export class UnreadableBatch extends Error {
  override readonly name = "UnreadableBatch";
  // kafkajs looks at this: reading the same bytes again helps nobody.
  readonly retriable = false;
}

/**
 * Teaches kafkajs to read every codec that Kafka has; by itself it knows gzip, and without a bound. It
 * keeps codecs for the whole process, so this may be called again. This service writes gzip alone.
 */
export function installCodecs(): void {
  const options = { maxOutputLength: DECOMPRESSED_BYTES_MAX };
  install(
    CompressionTypes.GZIP,
    "gzip",
    (bytes) => decompressGzip(bytes, options),
    (bytes) => compressGzip(bytes, { level: GZIP_LEVEL }),
  );
  install(CompressionTypes.Snappy, "snappy", async (bytes) =>
    decompressSnappy(bytes, DECOMPRESSED_BYTES_MAX),
  );
  install(CompressionTypes.LZ4, "lz4", async (bytes) => decompressLz4Frame(bytes, DECOMPRESSED_BYTES_MAX));
  install(CompressionTypes.ZSTD, "zstd", (bytes) => decompressZstd(bytes, options));
}

function install(
  type: keyof typeof CompressionCodecs,
  name: string,
  decompress: (bytes: Buffer) => Promise<Buffer>,
  compress?: (bytes: Buffer) => Promise<Buffer>,
): void {
  CompressionCodecs[type] = () => ({
    compress: async (encoder: Encoder) => {
      if (compress === undefined) {
        throw new Error(`This service reads ${name}, and does not write it`);
      }
      return await compress(encoder.buffer);
    },
    decompress: async (bytes: Buffer) => {
      try {
        return await decompress(bytes);
      } catch (cause) {
        const reason = cause instanceof Error ? cause.message : String(cause);
        throw new UnreadableBatch(`A batch compressed with ${name} cannot be read: ${reason}`, { cause });
      }
    },
  });
}
