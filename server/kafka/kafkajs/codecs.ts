import { promisify } from "node:util";
import { gzip, type ZlibOptions } from "node:zlib";
import kafkajs from "kafkajs";
import { GZIP_LEVEL } from "../records/encode-batch.ts";

// Node does not detect these as named exports of the CommonJS module.
const { CompressionCodecs, CompressionTypes } = kafkajs;

const compress: (bytes: Buffer, options: ZlibOptions) => Promise<Buffer> = promisify(gzip);

/** kafkajs's encoder, whose bytes are to be compressed. */
interface Encoder {
  readonly buffer: Buffer;
}

/**
 * Lets kafkajs compress with a fast level of gzip. Codecs are global to the process; calling this again has no further
 * effect. kafkajs decompresses nothing here.
 */
export function installCodecs(): void {
  const builtIn = CompressionCodecs[CompressionTypes.GZIP]();
  CompressionCodecs[CompressionTypes.GZIP] = () => ({
    ...builtIn,
    compress: (encoder: Encoder) => compress(encoder.buffer, { level: GZIP_LEVEL }),
  });
}
