import type { Ledger, StockChange } from "./ledger.ts";

/** The exclusive right to publish the changes of one bucket, until it expires or is taken over. */
export interface OutboxLease {
  readonly bucket: number;
  readonly owner: string;
  /** Fencing token. Increases with each new owner of the bucket; an older token is rejected. */
  readonly token: number;
}

/** One entry of a bucket's change stream. */
export interface OutboxEntry {
  /** The entry's position in the stream. */
  readonly id: string;
  readonly change: StockChange;
}

/** The entries to publish next. */
export interface OutboxBatch {
  /** Oldest first, directly after the last published entry. */
  readonly entries: readonly OutboxEntry[];
  /**
   * Changes were trimmed from the stream before they were published, so the newest state of every
   * product must be published (`snapshot`). True once all entries up to the gap, and those that were
   * in the stream when the gap was detected, are published; false again after `snapshotDone`.
   */
  readonly snapshotDue: boolean;
}

/** A product's newest state. */
export interface OutboxState {
  readonly ledger: Ledger;
  /** The store's time of the latest change, ms since 1970. */
  readonly updateTimeMs: number;
}

/** The publishing backlog of one bucket. */
export interface OutboxBacklog {
  readonly bucket: number;
  readonly entries: number;
  /** Age of the oldest unpublished entry by the store's clock, ms. 0 if there is none. */
  readonly oldestMs: number;
}

/**
 * The change stream as the publisher reads it: a transactional outbox, written in the same atomic
 * step as the ledger. The cursor is kept in the store and moves only with a valid lease, so that of
 * two publishers which both believe that they own a bucket one is rejected.
 *
 * The lease and its fencing token follow Kleppmann, "Designing Data-Intensive Applications" (2017),
 * chapter 8. Every method rejects with `STORE_UNAVAILABLE` if the store does not respond.
 */
export interface ChangeOutbox {
  readonly buckets: number;
  /** Registers this publisher for `ttlMs`. Resolves with the number of registered publishers, itself included. */
  announce(owner: string, ttlMs: number): Promise<number>;
  /** Withdraws a registration, so that the other publishers take over its share at once. */
  retire(owner: string): Promise<void>;
  /** Acquires the lease of a bucket. `undefined` if another owner has it. */
  acquire(bucket: number, owner: string, leaseMs: number): Promise<OutboxLease | undefined>;
  /** Extends a lease. False if it was lost. */
  renew(lease: OutboxLease, leaseMs: number): Promise<boolean>;
  /** Releases the lease, so that another server need not wait until it expires. */
  release(lease: OutboxLease): Promise<void>;
  /** Up to `limit` entries after the cursor. `undefined` if the lease was lost. */
  read(lease: OutboxLease, limit: number): Promise<OutboxBatch | undefined>;
  /** Moves the cursor past the acknowledged entries of the last read. False if the lease was lost: the cursor did not move. */
  advance(lease: OutboxLease, published: readonly OutboxEntry[]): Promise<boolean>;
  /** The state of every product of a bucket, deleted ones included, in batches. */
  snapshot(bucket: number): AsyncIterable<readonly OutboxState[]>;
  /** Records that the snapshot is published. False if the lease was lost: the snapshot stays due. */
  snapshotDone(lease: OutboxLease): Promise<boolean>;
  backlog(): Promise<OutboxBacklog[]>;
  close(): Promise<void>;
}
