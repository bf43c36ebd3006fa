import type { Ledger, StockChange } from "./ledger.ts";

/** The right to publish the changes of one bucket, until it expires or is taken over. */
export interface OutboxLease {
  readonly bucket: number;
  readonly owner: string;
  /** Grows with each new owner of the bucket: an older token is refused. */
  readonly token: number;
}

/** One entry of a bucket's change stream. */
export interface OutboxEntry {
  /** The entry's place in the stream. */
  readonly id: string;
  readonly change: StockChange;
}

/** What is to be published next. */
export interface OutboxBatch {
  /** Oldest first, directly after what was published before. */
  readonly entries: readonly OutboxEntry[];
  /**
   * True once everything up to a gap, and what stood in the stream when it was found, is published:
   * changes had fallen out of the backlog, so the newest state of every product is due
   * (`snapshot`), until `snapshotDone` is told.
   */
  readonly snapshotDue: boolean;
}

/** A product's newest state. */
export interface OutboxState {
  readonly ledger: Ledger;
  /** The store's time of the latest change, ms since 1970. */
  readonly updateTimeMs: number;
}

/** How far publishing is behind in one bucket. */
export interface OutboxBacklog {
  readonly bucket: number;
  readonly entries: number;
  /** Age of the oldest entry that is not published, by the store's clock, ms. 0 where there is none. */
  readonly oldestMs: number;
}

/**
 * The change stream as the publisher reads it: a transactional outbox, written in the same atomic
 * step as the ledger. The cursor of what is published lives in the store and moves only with a
 * valid lease, so that of two publishers which both think that they own a bucket one is refused.
 *
 * The lease and its fencing token follow Kleppmann, "Designing Data-Intensive Applications" (2017),
 * chapter 8. Every method rejects with `STORE_UNAVAILABLE` where the store does not answer.
 */
export interface ChangeOutbox {
  readonly buckets: number;
  /** Says for `ttlMs` that this publisher is there; resolves with how many are, itself included. */
  announce(owner: string, ttlMs: number): Promise<number>;
  /** Takes an announcement back, so that the others take its share at once. */
  retire(owner: string): Promise<void>;
  /** Takes the lease of a bucket, or `undefined` where another owner has it. */
  acquire(bucket: number, owner: string, leaseMs: number): Promise<OutboxLease | undefined>;
  /** Prolongs a lease. False where it was lost. */
  renew(lease: OutboxLease, leaseMs: number): Promise<boolean>;
  /** Gives the lease up at once, so that another server need not wait for its end. */
  release(lease: OutboxLease): Promise<void>;
  /** Up to `limit` entries after the cursor. `undefined` where the lease was lost. */
  read(lease: OutboxLease, limit: number): Promise<OutboxBatch | undefined>;
  /** Moves the cursor past entries that were read last and are acknowledged. False where the lease was lost: then nothing moved. */
  advance(lease: OutboxLease, published: readonly OutboxEntry[]): Promise<boolean>;
  /** The state of every product of a bucket, deleted ones included, in batches. */
  snapshot(bucket: number): AsyncIterable<readonly OutboxState[]>;
  /** The snapshot that was due is published. False where the lease was lost: then it stays due. */
  snapshotDone(lease: OutboxLease): Promise<boolean>;
  backlog(): Promise<OutboxBacklog[]>;
  close(): Promise<void>;
}
