import type { Collection } from "../inventory/collection.ts";
import type { ChangeFeed, FeedListener, ProductState } from "../inventory/feed.ts";
import type { StockChange } from "../inventory/ledger.ts";

/** The change feed of the memory store: a change is told in the step that makes it, and is never behind. */
export class MemoryFeed implements ChangeFeed {
  readonly #states: () => ProductState[];
  #listener: FeedListener | undefined;

  /** `states` gives every product as it now is, deleted ones included. */
  constructor(states: () => ProductState[]) {
    this.#states = states;
  }

  start(listener: FeedListener): void {
    this.#listener = listener;
    listener.onLoading(false);
    listener.onProducts(this.#states());
    listener.onLoaded();
    listener.onStale(false);
  }

  async stop(): Promise<void> {
    this.#listener = undefined;
  }

  tellChange(change: StockChange): void {
    this.#listener?.onChanges([change]);
  }

  tellCollections(collections: readonly Collection[]): void {
    this.#listener?.onCollections(collections);
  }
}
