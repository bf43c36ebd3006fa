import type { ReservationStore } from "./store.ts";

/** Between two looks for reservations that are due. A deadline is met at most this much late, and the work itself. */
const LOOK_INTERVAL_MS = 200;
/** Reservations expired in one atomic step: about 3 ms of Redis's time, so that other calls do not wait for thousands. */
const EXPIRE_MAX = 64;

interface ExpiryOptions {
  readonly reservations: ReservationStore;
  /** Told of a look that failed, and not again until one has succeeded; the next one follows all the same. */
  readonly onError: (error: unknown) => void;
  /** Told how many each step has expired. */
  readonly onExpired?: (count: number) => void;
  readonly lookIntervalMs?: number;
}

/**
 * Expires reservations whose deadline has passed, a bounded number at a time. Every server runs
 * one; a step expires a reservation once, however many servers look.
 */
export class ExpirySweeper {
  readonly #options: ExpiryOptions;
  readonly #lookIntervalMs: number;
  #timer: NodeJS.Timeout | undefined;
  #look: Promise<void> = Promise.resolve();
  #stopped = false;
  #isFailing = false;

  constructor(options: ExpiryOptions) {
    this.#options = options;
    this.#lookIntervalMs = options.lookIntervalMs ?? LOOK_INTERVAL_MS;
    this.#schedule();
  }

  /** Resolves when the look under way has ended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#look;
  }

  #schedule(): void {
    if (!this.#stopped) {
      this.#timer = setTimeout(() => {
        this.#look = this.#expireAllDue().finally(() => this.#schedule());
      }, this.#lookIntervalMs);
    }
  }

  async #expireAllDue(): Promise<void> {
    try {
      let mayBeMore = true;
      while (!this.#stopped && mayBeMore) {
        const expired = await this.#options.reservations.expireDue(EXPIRE_MAX);
        this.#options.onExpired?.(expired);
        this.#isFailing = false;
        mayBeMore = expired === EXPIRE_MAX;
      }
    } catch (error) {
      if (!this.#isFailing) {
        this.#isFailing = true;
        this.#options.onError(error);
      }
    }
  }
}
