import type { Collection } from "./collection.ts";
import type { ChangeCause, Stock, StockChange } from "./ledger.ts";

/** A product as a live view keeps it. Deleted products are kept, so that an older state cannot restore them. */
export interface ProductState extends Stock {
  readonly deleted: boolean;
  /** Whether active reservations hold units. */
  readonly isReserved: boolean;
  /** Whether some of the units held are not in stock. */
  readonly isShort: boolean;
}

/**
 * How a feed divides the products. Each partition is loaded, and is current or out of date, independently of the others:
 * its changes come from a source of its own, such as the primary of one bucket in a Redis Cluster.
 */
export interface FeedPartitions {
  /** 1 or more. */
  readonly count: number;
  /** The partition of a product: 0 to `count` - 1. */
  of(productId: string): number;
}

/** All products in one partition. */
export const ONE_PARTITION: FeedPartitions = { count: 1, of: () => 0 };

/**
 * The callbacks of a consumer of the change stream. They are called one at a time. `partition` is the one that a call is
 * about.
 */
export interface FeedListener {
  /** The first call, before `ChangeFeed.start` returns. */
  onStart(partitions: FeedPartitions): void;
  /**
   * A full load begins: a product that is not reported before `onLoaded` no longer exists. `isOtherData`: the store
   * restarted with other data than before, so versions may be lower than known ones.
   */
  onLoading(isOtherData: boolean, partition: number): void;
  /** Products of the full load. A newer state may have been reported before: compare versions. */
  onProducts(states: readonly ProductState[], partition: number): void;
  onLoaded(partition: number): void;
  /** The partition could not be loaded for a while after the start. The feed continues to try. */
  onUnavailable(partition: number): void;
  /** Changes, in version order per product. May repeat states of the full load. */
  onChanges(changes: readonly StockChange[], partition: number): void;
  /**
   * The number of changes, by cause, that are left out of the next `onChanges`, because that has a newer change of the
   * same product.
   */
  onSuperseded(causes: ReadonlyMap<ChangeCause, number>): void;
  /** All collections, after each read. They belong to partition 0. */
  onCollections(collections: readonly Collection[]): void;
  /**
   * Everything that the store had acknowledged at this time was reported. A time of `performance.now()`, in the recent
   * past; `Infinity` if the feed is current at all times. A consumer is out of date if the last such time is long ago.
   */
  onCurrent(atMs: number, partition: number): void;
}

/**
 * The change stream as live views read it: first the state of every product, then every change.
 * After an outage of the store it resumes at its last position. It starts over with a full load if
 * it has missed changes that the stream no longer has.
 */
export interface ChangeFeed {
  /** Starts the calls to the listener. At most one listener. */
  start(listener: FeedListener): void;
  /** Resolves when the listener will not be called again. */
  stop(): Promise<void>;
}
