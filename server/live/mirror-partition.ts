import { AcknowledgedVersions } from "./acknowledged-versions.ts";
import type { RowSet } from "./products/row-set.ts";

/** The states are stale if they were last known to be current longer ago than this. */
export const STALE_AFTER_MS = 1_000;

/** What a partition needs of its mirror. */
interface MirrorPartitionOptions {
  /** Monotonic, ms. */
  readonly now: () => number;
  /** The delivered version of a product, 0 if there is none. */
  readonly versionOf: (productId: string) => number;
  /** The partition became stale or current. */
  readonly onStale: () => void;
}

/** A partition of the feed: how far it is loaded, and when its states were last known to be current. */
export class MirrorPartition {
  /** Whether a full load has ever completed. */
  isLoaded = false;
  /** Whether the feed has reported that it cannot load it. */
  isUnavailable = false;
  /** During a full load: the rows that it has not reported yet. */
  unreported: RowSet | undefined;
  /** Whether a full load of other data is in progress. Its versions may be lower than known ones. */
  ignoresVersions = false;
  /** The versions that this server has acknowledged and the feed has not delivered. */
  readonly acknowledged: AcknowledgedVersions;
  readonly #now: () => number;
  readonly #onStale: () => void;
  #currentAtMs = Number.NEGATIVE_INFINITY;
  #staleTimer: NodeJS.Timeout | undefined;

  constructor({ now, versionOf, onStale }: MirrorPartitionOptions) {
    this.#now = now;
    this.#onStale = onStale;
    this.acknowledged = new AcknowledgedVersions(versionOf, now);
  }

  /** Whether the states may be out of date: they were not known to be current within the last `STALE_AFTER_MS`. */
  get isStale(): boolean {
    return this.#now() - this.#currentAtMs > STALE_AFTER_MS;
  }

  /** When the states were last known to be current, on the clock of `now`; -Infinity if never. */
  get currentAtMs(): number {
    return this.#currentAtMs;
  }

  /** The states were current at this time. */
  onCurrent(atMs: number): void {
    const wasStale = this.isStale;
    this.#currentAtMs = Math.max(this.#currentAtMs, atMs);
    this.acknowledged.dropUntil(atMs);
    if (this.isStale) {
      return;
    }
    if (wasStale) {
      this.#onStale();
    }
    if (this.#staleTimer === undefined) {
      this.#setStaleTimer();
    }
  }

  close(): void {
    clearTimeout(this.#staleTimer);
    this.acknowledged.clear();
  }

  /** Reports when the states become stale. One timer, which is restarted if they became current in between. */
  #setStaleTimer(): void {
    const restMs = this.#currentAtMs + STALE_AFTER_MS - this.#now();
    if (restMs === Number.POSITIVE_INFINITY) {
      return;
    }
    this.#staleTimer = setTimeout(
      () => {
        this.#staleTimer = undefined;
        if (this.isStale) {
          this.acknowledged.resolveAll();
          this.#onStale();
        } else {
          this.#setStaleTimer();
        }
      },
      Math.floor(Math.max(0, restMs)) + 1,
    );
    this.#staleTimer.unref();
  }
}
