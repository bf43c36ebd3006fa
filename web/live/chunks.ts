/** Bytes of IDs in one polling request: proxies refuse a request line of more than about 8 KB. */
const ID_BYTES_MAX = 3_000;
/** Upper bound of the encoding's bytes per ID: quotes and a comma, or a tag and a length. */
const ID_OVERHEAD_BYTES = 4;

/**
 * Splits IDs into chunks that fit into a request line. The IDs are sorted, so that two pages with the same products
 * send the same, cacheable request.
 */
export function inChunks(productIds: readonly string[]): string[][] {
  const chunks: string[][] = [];
  let bytes = ID_BYTES_MAX;
  for (const productId of [...productIds].sort()) {
    const size = encodeURIComponent(productId).length + ID_OVERHEAD_BYTES;
    if (bytes + size > ID_BYTES_MAX) {
      chunks.push([]);
      bytes = 0;
    }
    chunks.at(-1)?.push(productId);
    bytes += size;
  }
  return chunks;
}
