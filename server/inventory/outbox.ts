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
   * True where entries after the cursor were lost: the backlog passed its limit. Then publish every
   * product's newest state (`snapshot`), and go on from `entries`.
   */
  readonly gap: boolean;
}

/** How far publishing is behind in one bucket. */
export interface OutboxBacklog {
  readonly bucket: number;
  readonly entries: number;
  /** Age of the oldest entry that is not published, by the store's clock. 0 where there is none. */
  readonly oldestMs: number;
}

/**
 * The change stream as the publisher reads it: a transactional outbox, written in the same atomic
 * step as the ledger. The cursor of what is published lives in the store and moves only with a
 * valid lease, so that of two publishers which both think that they own a bucket one is refused.
 *
 * Every method rejects with `STORE_UNAVAILABLE` where the store does not answer.
 */
export interface ChangeOutbox {
  readonly buckets: number;
  /** Takes the lease of a bucket, or `undefined` where another owner has it. */
  acquire(bucket: number, owner: string, leaseMs: number): Promise<OutboxLease | undefined>;
  /** Prolongs a lease. False where it was lost. */
  renew(lease: OutboxLease, leaseMs: number): Promise<boolean>;
  /** Up to `limit` entries after the cursor. */
  read(bucket: number, limit: number): Promise<OutboxBatch>;
  /** Moves the cursor to an entry that was acknowledged. False where the lease was lost: then nothing moved. */
  advance(lease: OutboxLease, id: string): Promise<boolean>;
  /** Gives the lease up at once, so that another server need not wait for its end. */
  release(lease: OutboxLease): Promise<void>;
  /** The state of every product of a bucket, deleted ones included, in batches. */
  snapshot(
    bucket: number,
  ): AsyncIterable<readonly { readonly ledger: Ledger; readonly updateTimeMs: number }[]>;
  backlog(): Promise<OutboxBacklog[]>;
}
