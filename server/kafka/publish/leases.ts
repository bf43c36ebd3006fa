import { setTimeout as wait } from "node:timers/promises";
import type { Logger } from "pino";
import type { ChangeOutbox, OutboxLease } from "../../inventory/outbox.ts";
import type { Metrics } from "../../ops/metrics.ts";

/** Duration of a lease. A server that does not renew it loses its buckets to others. */
const LEASE_MS_DEFAULT = 5_000;
/** Renewals per lease duration: four may fail before the lease expires. */
const RENEWALS_PER_LEASE = 5;
/** Interval between two attempts after one failed. */
const RETRY_MS = 250;

interface LeasesOptions {
  readonly outbox: ChangeOutbox;
  readonly owner: string;
  readonly metrics: Metrics;
  readonly log: Logger;
  readonly leaseMs?: number;
}

interface Held {
  readonly lease: OutboxLease;
  /** By this process's monotonic clock, counted from before the request: never later than the store's expiry. */
  validUntil: number;
}

/** The number of unpublished changes and the age of the oldest. */
export interface Backlog {
  readonly messages: number;
  readonly seconds: number;
}

/**
 * Holds this server's fair share of the buckets: the number of buckets divided by the number of live servers, rounded
 * up. Polls the backlog as well.
 */
export class Leases {
  readonly #options: LeasesOptions;
  readonly #leaseMs: number;
  readonly #held = new Map<number, Held>();
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  #share = 0;
  #trouble: string | undefined;
  #backlog: Backlog | undefined;

  constructor(options: LeasesOptions) {
    this.#options = options;
    this.#leaseMs = options.leaseMs ?? LEASE_MS_DEFAULT;
    this.#running = this.#renewUntilStopped();
  }

  /** Why leases can be neither acquired nor renewed. */
  get trouble(): string | undefined {
    return this.#trouble;
  }

  /** The backlog of all servers together; `undefined` before the first poll. */
  get backlog(): Backlog | undefined {
    return this.#backlog;
  }

  /** The leases that have not expired. */
  held(): OutboxLease[] {
    const now = performance.now();
    return [...this.#held.values()].filter(({ validUntil }) => validUntil > now).map(({ lease }) => lease);
  }

  /** Drops a lease that the store has refused. */
  lost(lease: OutboxLease): void {
    if (this.#held.get(lease.bucket)?.lease === lease) {
      this.#held.delete(lease.bucket);
    }
  }

  /** Releases the buckets beyond this server's share. To be called while nothing is being published. */
  async settle(): Promise<void> {
    const excess = [...this.#held.values()].slice(this.#share);
    for (const { lease } of excess) {
      this.#held.delete(lease.bucket);
      // If the release fails, the lease expires by itself.
      await this.#options.outbox.release(lease).catch(() => {});
    }
  }

  /** Releases all leases, if the store is reachable. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
    this.#share = 0;
    await this.settle();
    await this.#options.outbox.retire(this.#options.owner).catch(() => {});
    this.#options.metrics.publishLeases.set(0);
  }

  async #renewUntilStopped(): Promise<void> {
    const { log, metrics } = this.#options;
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      let waitMs = this.#leaseMs / RENEWALS_PER_LEASE;
      try {
        await this.#renew();
        await this.#pollBacklog();
        this.#trouble = undefined;
      } catch (error) {
        if (this.#trouble === undefined && !signal.aborted) {
          log.debug({ err: error }, "The outbox leases cannot be renewed");
        }
        this.#trouble = error instanceof Error ? error.message : String(error);
        waitMs = Math.min(waitMs, RETRY_MS);
      }
      metrics.publishLeases.set(this.held().length);
      await wait(waitMs, undefined, { signal }).catch(() => {});
    }
  }

  async #renew(): Promise<void> {
    const { outbox, owner } = this.#options;
    const publishers = await outbox.announce(owner, this.#leaseMs);
    this.#share = Math.ceil(outbox.buckets / Math.max(1, publishers));
    await Promise.all(
      [...this.#held.values()].map(async (held) => {
        const validUntil = performance.now() + this.#leaseMs;
        if (await outbox.renew(held.lease, this.#leaseMs)) {
          held.validUntil = validUntil;
        } else {
          this.lost(held.lease);
        }
      }),
    );
    // A random start, so that servers do not all try to acquire the same bucket first.
    const first = Math.floor(Math.random() * outbox.buckets);
    for (let n = 0; n < outbox.buckets && this.#held.size < this.#share; n++) {
      const bucket = (first + n) % outbox.buckets;
      if (!this.#held.has(bucket) && !this.#stopping.signal.aborted) {
        const validUntil = performance.now() + this.#leaseMs;
        const lease = await outbox.acquire(bucket, owner, this.#leaseMs);
        if (lease !== undefined) {
          this.#held.set(bucket, { lease, validUntil });
        }
      }
    }
  }

  async #pollBacklog(): Promise<void> {
    const { outbox, metrics } = this.#options;
    const backlog = await outbox.backlog();
    for (const { bucket, entries } of backlog) {
      metrics.publishLagMessages.set({ bucket: String(bucket) }, entries);
    }
    this.#backlog = {
      messages: backlog.reduce((sum, { entries }) => sum + entries, 0),
      seconds: Math.max(...backlog.map(({ oldestMs }) => oldestMs)) / 1_000,
    };
    metrics.publishLagSeconds.set(this.#backlog.seconds);
  }
}
