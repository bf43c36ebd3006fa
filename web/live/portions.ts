/** IDs of one polling request: a request line of more than some 8 KB is refused along the way. */
const ID_BYTES_MAX = 3_000;
/** What goes along with an ID at most: quotes and a comma, or a tag and a length. */
const ID_BYTES_MORE = 4;

/** The IDs in order, so that two pages that show the same ask for one address, in portions that an address has room for. */
export function inPortions(productIds: readonly string[]): string[][] {
  const portions: string[][] = [];
  let bytes = ID_BYTES_MAX;
  for (const productId of [...productIds].sort()) {
    const size = encodeURIComponent(productId).length + ID_BYTES_MORE;
    if (bytes + size > ID_BYTES_MAX) {
      portions.push([]);
      bytes = 0;
    }
    portions.at(-1)?.push(productId);
    bytes += size;
  }
  return portions;
}
