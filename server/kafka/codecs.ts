import { promisify } from "node:util";
import { gunzip, gzip, type ZlibOptions, type ZstdOptions, zstdDecompress } from "node:zlib";
import kafkajs from "kafkajs";
import { decompressLz4Frame } from "./lz4.ts";
import { decompressSnappy } from "./snappy.ts";

/**
 * Maximum size of a decompressed batch: 64 times a broker's default `max.message.bytes`. Without a bound, one batch of
 * a megabyte could exhaust the memory.
 */
export const DECOMPRESSED_BYTES_MAX = 64 * 1024 * 1024;

// Node does not detect these as named exports of the CommonJS module.
const { CompressionCodecs, CompressionTypes } = kafkajs;

/** From 1 to 9. The best of zlib's fast levels: the default, 6, takes four times as long and saves a sixth of the bytes. */
const GZIP_LEVEL = 3;

const compressGzip: (bytes: Buffer, options: ZlibOptions) => Promise<Buffer> = promisify(gzip);
const decompressGzip = promisify(gunzip);
const decompressZstd: (bytes: Buffer, options: ZstdOptions) => Promise<Buffer> = promisify(zstdDecompress);

/** kafkajs's encoder, whose bytes are to be compressed. */
interface Encoder {
  readonly buffer: Buffer;
}

/** A batch that could not be decompressed. kafkajs does not read past it. */
export class UnreadableBatch extends Error {
  override readonly name = "UnreadableBatch";
  // Read by kafkajs: decompressing the same bytes again would fail again.
  readonly retriable = false;
}

/**
 * Installs decompressors for every codec of Kafka. kafkajs itself supports only gzip, without a bound. Codecs are
 * global to the process; calling this again has no further effect. This service compresses with gzip only.
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
        throw new Error(`${name} is supported for reading only`);
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
