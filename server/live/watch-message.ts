import type { ProductState } from "../inventory/feed.ts";

/** About how many bytes one message may have: with what node buffers, a reader that stops holds less than 32 KB. */
const MESSAGE_BYTES_MAX = 12 * 1024;
/** What a product costs in a message besides its texts, at most. */
const PRODUCT_BYTES = 64;
/** Bytes of UTF-8 for each UTF-16 unit, at most. */
const BYTES_PER_UNIT_MAX = 3;

/** The products of one message of a watch, as many as fit. */
export class WatchMessage {
  readonly #stocks: ProductState[] = [];
  readonly #removed: string[] = [];
  readonly #withDetails = new Set<string>();
  #bytes = 0;

  get parts() {
    return { stocks: this.#stocks, removed: this.#removed, withDetails: this.#withDetails };
  }

  /** Adds a product, one that is gone where there is no state. False where it does not fit; the first one always does. */
  add(productId: string, state: ProductState | undefined, details: boolean): boolean {
    const bytes = bytesOf(productId, state, details);
    if (this.#bytes > 0 && this.#bytes + bytes > MESSAGE_BYTES_MAX) {
      return false;
    }
    this.#bytes += bytes;
    if (state === undefined) {
      this.#removed.push(productId);
    } else {
      this.#stocks.push(state);
      if (details) {
        this.#withDetails.add(productId);
      }
    }
    return true;
  }
}

function bytesOf(productId: string, state: ProductState | undefined, details: boolean): number {
  const texts =
    details && state?.details
      ? state.details.name.length + state.details.description.length + state.details.collectionId.length
      : 0;
  return PRODUCT_BYTES + BYTES_PER_UNIT_MAX * (productId.length + texts);
}
