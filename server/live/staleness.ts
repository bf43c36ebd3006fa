import type { FeedPartitions } from "../inventory/feed.ts";

/** Which partitions of the mirror may be out of date, at one moment. Immutable. */
export class Staleness {
  readonly #partitions: FeedPartitions;
  readonly #stale: ReadonlySet<number>;

  constructor(partitions: FeedPartitions, stale: ReadonlySet<number>) {
    this.#partitions = partitions;
    this.#stale = stale;
  }

  /** Whether any partition is stale. */
  get isAny(): boolean {
    return this.#stale.size > 0;
  }

  /** Whether any of these products may be out of date; without IDs, any product. */
  isAmong(productIds: Iterable<string> | undefined): boolean {
    if (productIds === undefined || this.#stale.size === 0 || this.#stale.size === this.#partitions.count) {
      return this.isAny;
    }
    for (const productId of productIds) {
      if (this.#stale.has(this.#partitions.of(productId))) {
        return true;
      }
    }
    return false;
  }

  /** Whether exactly these partitions are stale. */
  hasExactly(stale: ReadonlySet<number>): boolean {
    return stale.size === this.#stale.size && [...stale].every((partition) => this.#stale.has(partition));
  }
}
