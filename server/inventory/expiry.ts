import type { ExpiredReservation } from "./reservation.ts";
import type { ReservationStore } from "./store.ts";

/** Interval between two sweeps. It bounds how late a reservation expires, apart from the duration of the sweep itself. */
const SWEEP_INTERVAL_MS = 200;
/** Reservations expired in one atomic step: about 3 ms of Redis's time, which bounds the delay of concurrent calls. */
const EXPIRE_MAX = 64;

interface ExpiryOptions {
  readonly reservations: ReservationStore;
  /** Called when a sweep fails, and not again until one has succeeded. Sweeps continue at the same interval. */
  readonly onError: (error: unknown) => void;
  /**
   * Called after each step with the reservations that it expired. Not with those of a step whose response was lost: their
   * changes are recorded all the same.
   */
  readonly onExpired?: (expired: readonly ExpiredReservation[]) => void;
  readonly sweepIntervalMs?: number;
}

/**
 * Expires reservations whose deadline has passed, a bounded number at a time. Every server runs
 * one; the atomic step expires a reservation once, however many servers sweep.
 */
export class ExpirySweeper {
  readonly #options: ExpiryOptions;
  readonly #sweepIntervalMs: number;
  #timer: NodeJS.Timeout | undefined;
  #sweep: Promise<void> = Promise.resolve();
  #stopped = false;
  #isFailing = false;

  constructor(options: ExpiryOptions) {
    this.#options = options;
    this.#sweepIntervalMs = options.sweepIntervalMs ?? SWEEP_INTERVAL_MS;
    this.#schedule();
  }

  /** Resolves when a running sweep has ended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#sweep;
  }

  #schedule(): void {
    if (!this.#stopped) {
      this.#timer = setTimeout(() => {
        this.#sweep = this.#expireAllDue().finally(() => this.#schedule());
      }, this.#sweepIntervalMs);
    }
  }

  async #expireAllDue(): Promise<void> {
    try {
      let mayBeMore = true;
      while (!this.#stopped && mayBeMore) {
        const expired = await this.#options.reservations.expireDue(EXPIRE_MAX);
        this.#options.onExpired?.(expired);
        this.#isFailing = false;
        mayBeMore = expired.length === EXPIRE_MAX;
      }
    } catch (error) {
      if (!this.#isFailing) {
        this.#isFailing = true;
        this.#options.onError(error);
      }
    }
  }
}
