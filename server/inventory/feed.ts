import type { Collection } from "./collection.ts";
import type { Stock, StockChange } from "./ledger.ts";

/** A product as a live view keeps it. Deleted ones are kept too, so that an older state cannot bring them back. */
export interface ProductState extends Stock {
  readonly deleted: boolean;
}

/** What a follower of the change stream is told, one call after the other. */
export interface FeedListener {
  /**
   * A full picture begins: what is not named until `onLoaded` is gone. `isOtherData` where the store
   * came back with data that is not what it had: versions may then be lower than known ones.
   */
  onLoading(isOtherData: boolean): void;
  /** Products of the full picture. A newer state may have been told by then: compare versions. */
  onProducts(states: readonly ProductState[]): void;
  onLoaded(): void;
  /** Changes in the order of their versions, each product's. May repeat what the full picture had. */
  onChanges(changes: readonly StockChange[]): void;
  /** All collections, when they were read anew. */
  onCollections(collections: readonly Collection[]): void;
  /** Whether what was told last may be behind: the store cannot be reached. */
  onStale(stale: boolean): void;
}

/**
 * The change stream as live views read it: first every product's state, then every change. It
 * takes up where it was when the store comes back, and begins anew with a full picture when it
 * has missed changes that the stream no longer has.
 */
export interface ChangeFeed {
  /** Starts to tell. At most one listener. */
  start(listener: FeedListener): void;
  /** Resolves when nothing more will be told. */
  stop(): Promise<void>;
}
