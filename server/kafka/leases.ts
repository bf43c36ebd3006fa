import { setTimeout as wait } from "node:timers/promises";
import type { Logger } from "pino";
import type { ChangeOutbox, OutboxLease } from "../inventory/outbox.ts";
import type { Metrics } from "../ops/metrics.ts";

/** A server that is silent this long has died, and its buckets go to others. */
const LEASE_MS_DEFAULT = 5_000;
/** Looks at the leases while one lasts: four may fail before it is lost. */
const LOOKS_PER_LEASE = 5;
/** Between two looks after one failed. */
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
  /** By this process's clock, counted from before the request: never later than the store's. */
  validUntil: number;
}

/** Changes that are not published, and the age of the oldest. */
export interface Backlog {
  readonly messages: number;
  readonly seconds: number;
}

/**
 * Holds this server's fair share of the buckets: as many as there are, divided by the servers that
 * are there, rounded up. Looks at the backlog on the way.
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
    this.#running = this.#lookUntilStopped();
  }

  /** Why leases can be neither taken nor kept. */
  get trouble(): string | undefined {
    return this.#trouble;
  }

  /** How far publishing is behind, by all servers together; `undefined` before the first look. */
  get backlog(): Backlog | undefined {
    return this.#backlog;
  }

  /** The leases that have not run out. */
  held(): OutboxLease[] {
    const now = performance.now();
    return [...this.#held.values()].filter(({ validUntil }) => validUntil > now).map(({ lease }) => lease);
  }

  /** The store has refused this lease. */
  lost(lease: OutboxLease): void {
    if (this.#held.get(lease.bucket)?.lease === lease) {
      this.#held.delete(lease.bucket);
    }
  }

  /** Gives up what is more than this server's share. For moments at which nothing is being published. */
  async settle(): Promise<void> {
    const excess = [...this.#held.values()].slice(this.#share);
    for (const { lease } of excess) {
      this.#held.delete(lease.bucket);
      // Where that fails, the lease runs out.
      await this.#options.outbox.release(lease).catch(() => {});
    }
  }

  /** Gives all leases up, where the store can be reached. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
    this.#share = 0;
    await this.settle();
    await this.#options.outbox.retire(this.#options.owner).catch(() => {});
    this.#options.metrics.publishLeases.set(0);
  }

  async #lookUntilStopped(): Promise<void> {
    const { log, metrics } = this.#options;
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      let waitMs = this.#leaseMs / LOOKS_PER_LEASE;
      try {
        await this.#look();
        await this.#lookAtBacklog();
        this.#trouble = undefined;
      } catch (error) {
        if (this.#trouble === undefined && !signal.aborted) {
          log.debug({ err: error }, "The leases of the outbox cannot be kept");
        }
        this.#trouble = error instanceof Error ? error.message : String(error);
        waitMs = Math.min(waitMs, RETRY_MS);
      }
      metrics.publishLeases.set(this.held().length);
      await wait(waitMs, undefined, { signal }).catch(() => {});
    }
  }

  async #look(): Promise<void> {
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
    // Each server begins elsewhere, so that they do not all reach for the same bucket.
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

  async #lookAtBacklog(): Promise<void> {
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
