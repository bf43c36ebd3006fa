import type { Collection } from "../inventory/collection.ts";
import type { ChangeFeed, FeedListener, ProductState } from "../inventory/feed.ts";
import type { StockChange } from "../inventory/ledger.ts";

/** The change feed of the memory store. A change is delivered in the step that makes it, so the feed is never stale. */
export class MemoryFeed implements ChangeFeed {
  readonly #states: () => ProductState[];
  #listener: FeedListener | undefined;

  /** `states` returns the current state of every product, deleted ones included. */
  constructor(states: () => ProductState[]) {
    this.#states = states;
  }

  start(listener: FeedListener): void {
    this.#listener = listener;
    listener.onLoading(false);
    listener.onProducts(this.#states());
    listener.onLoaded();
    listener.onCurrent(Number.POSITIVE_INFINITY);
  }

  async stop(): Promise<void> {
    this.#listener = undefined;
  }

  deliverChange(change: StockChange): void {
    this.#listener?.onChanges([change]);
  }

  deliverCollections(collections: readonly Collection[]): void {
    this.#listener?.onCollections(collections);
  }
}
