import { promisify } from "node:util";
import { type BrotliDecompress, brotliDecompress, type Gunzip, gunzip } from "node:zlib";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Compression } from "@connectrpc/connect/protocol";
import { compressionBrotli, compressionGzip } from "@connectrpc/connect-node";

/** With the option `info`. */
interface Decompressed {
  readonly buffer: Buffer;
  readonly engine: Gunzip | BrotliDecompress;
}

type Decompress = (bytes: Uint8Array, options: { maxOutputLength: number; info: true }) => Promise<unknown>;

/**
 * The compressions that clients may use. Connect's own report a message that is cut off as INTERNAL, and ignore some bytes
 * after its end. Here both are INVALID_ARGUMENT.
 */
export const COMPRESSIONS: readonly Compression[] = [
  { ...compressionGzip, decompress: strict("gzip", promisify(gunzip)) },
  { ...compressionBrotli, decompress: strict("br", promisify(brotliDecompress)) },
];

function strict(name: string, decompress: Decompress): Compression["decompress"] {
  return async (bytes, maxOutputLength) => {
    if (bytes.length === 0) {
      return new Uint8Array(0);
    }
    const result = await decompress(bytes, { maxOutputLength, info: true }).catch((error: unknown) => {
      throw toConnectError(name, error, maxOutputLength);
    });
    const { buffer, engine } = result as Decompressed;
    const extra = bytes.length - engine.bytesWritten;
    if (extra > 0) {
      throw new ConnectError(`The message has ${extra} bytes after its ${name} data`, Code.InvalidArgument);
    }
    return new Uint8Array(buffer);
  };
}

function toConnectError(name: string, error: unknown, bytesMax: number): ConnectError {
  const { code, message } = error as NodeJS.ErrnoException;
  return code === "ERR_BUFFER_TOO_LARGE"
    ? new ConnectError(
        `message is larger than configured readMaxBytes ${bytesMax} after decompression`,
        Code.ResourceExhausted,
      )
    : new ConnectError(`The message is not valid ${name}: ${message}`, Code.InvalidArgument);
}
