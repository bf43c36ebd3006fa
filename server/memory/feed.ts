import type { Collection } from "../inventory/collection.ts";
import { type ChangeFeed, type FeedListener, ONE_PARTITION, type ProductState } from "../inventory/feed.ts";
import type { StockChange } from "../inventory/ledger.ts";

/** The only partition. */
const PARTITION = 0;

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
    listener.onStart(ONE_PARTITION);
    listener.onLoading(false, PARTITION);
    listener.onProducts(this.#states(), PARTITION);
    listener.onLoaded(PARTITION);
    listener.onCurrent(Number.POSITIVE_INFINITY, PARTITION);
  }

  async stop(): Promise<void> {
    this.#listener = undefined;
  }

  deliverChange(change: StockChange): void {
    this.#listener?.onChanges([change], PARTITION);
  }

  deliverCollections(collections: readonly Collection[]): void {
    this.#listener?.onCollections(collections);
  }
}
