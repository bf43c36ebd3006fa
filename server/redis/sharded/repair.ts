import type { Coordinator, Protocol } from "../../inventory/sharded/coordinator.ts";
import type { Primaries } from "../connection/primaries.ts";
import type { Keys } from "../keys.ts";
import type { RedisMetrics } from "../metrics.ts";
import type { Mutations } from "../mutations/mutations.ts";
import { dueBuckets } from "./overdue.ts";

/** Interval between two sweeps, ms. */
const SWEEP_INTERVAL_MS = 1_000;
/** Age from which a hold is taken for one that no server will decide, ms: longer than any call takes. */
export const UNDECIDED_MS_MAX = 5_000;
/** Age from which an effect is taken for one that no server will apply, ms. */
export const OWED_MS_MAX = 2_000;
/** Reservations of one bucket that are repaired in one sweep. */
const REPAIRED_MAX = 100;

/** The sets of a bucket that name reservations with work left to do. */
export const REPAIR_SETS = ["undecided", "owed"] as const;
export type RepairSet = (typeof REPAIR_SETS)[number];

interface RepairOptions {
  readonly keys: Keys;
  readonly mutations: Mutations;
  readonly primaries: Primaries;
  readonly coordinator: Coordinator;
  readonly run: (protocol: Protocol<void>) => Promise<void>;
  readonly metrics?: RedisMetrics | undefined;
}

/**
 * Finishes what servers have left undone: holds that were not decided, and decisions that were not applied in every bucket. Every
 * server sweeps every bucket; each overdue reservation is taken by one of them at a time. Safety does not depend on that.
 */
export class Repair {
  readonly #options: RepairOptions;
  #timer: NodeJS.Timeout | undefined;
  #sweep: Promise<unknown> = Promise.resolve();
  #isClosed = false;

  constructor(options: RepairOptions) {
    this.#options = options;
    this.#schedule();
  }

  /** Resolves when a running sweep has ended. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    await this.#sweep;
  }

  /** Repairs what has waited longer than `undecidedMs` or `owedMs`, as far as it can be reached. */
  async sweep(undecidedMs = UNDECIDED_MS_MAX, owedMs = OWED_MS_MAX): Promise<void> {
    await Promise.all([
      this.#repairSet("undecided", undecidedMs, (bucket) => this.#abandonUndecided(bucket, undecidedMs)),
      this.#repairSet("owed", owedMs, (bucket) => this.#settleOwed(bucket, owedMs)),
    ]);
  }

  #schedule(): void {
    if (!this.#isClosed) {
      this.#timer = setTimeout(() => {
        this.#sweep = this.sweep()
          .catch(() => {})
          .finally(() => this.#schedule());
      }, SWEEP_INTERVAL_MS);
      this.#timer.unref();
    }
  }

  async #repairSet(
    set: RepairSet,
    overdueMs: number,
    repair: (bucket: number) => Promise<void>,
  ): Promise<void> {
    const { keys, primaries, metrics } = this.#options;
    const now = Date.now();
    const due = await dueBuckets(
      primaries,
      keys,
      (bucket) => (set === "undecided" ? keys.undecided(bucket) : keys.owed(bucket)),
      now - overdueMs,
    );
    const oldestMs = due.reduce((oldest, { since }) => Math.max(oldest, now - since), 0);
    metrics?.setOverdue(set, due.length, oldestMs / 1_000);
    await Promise.allSettled(due.map(({ bucket }) => repair(bucket)));
  }

  async #abandonUndecided(bucket: number, overdueMs: number): Promise<void> {
    const { keys, mutations, coordinator, run } = this.#options;
    const reply = await mutations.run({
      name: "take_undecided",
      keys: [keys.undecided(bucket)],
      args: [overdueMs, REPAIRED_MAX],
      products: 1,
      isIdempotent: true,
    });
    reply.text();
    const abandoned: Promise<void>[] = [];
    for (let id = reply.optionalText(); id !== undefined; id = reply.optionalText()) {
      const attempt = { reservationId: id, epoch: reply.integer(), fingerprint: reply.text() };
      abandoned.push(run(coordinator.abandon(attempt, [bucket])));
    }
    await Promise.allSettled(abandoned);
  }

  async #settleOwed(bucket: number, overdueMs: number): Promise<void> {
    const { keys, mutations, coordinator, run } = this.#options;
    const reply = await mutations.run({
      name: "take_owed",
      keys: [keys.owed(bucket)],
      args: [overdueMs, REPAIRED_MAX],
      products: 1,
      isIdempotent: true,
    });
    reply.text();
    await Promise.allSettled(reply.texts().map((id) => run(coordinator.settleOwed(id))));
  }
}
