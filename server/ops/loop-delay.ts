/** Milliseconds between two looks. Often enough to see a jam within a few calls' time. */
const LOOK_INTERVAL_MS = 20;
/** What one look counts against all before it: a pause of 100 ms for garbage raises the figure by 20. */
const WEIGHT = 0.2;
/**
 * What one look may be late by, at most: one long turn, over before anybody can be refused for it, must not close the door
 * behind it. It raises the figure by 1,000, half of what known callers are refused at by default.
 */
const LATE_MS_MAX = 5_000;

/**
 * How late the event loop is, in milliseconds, smoothed over some ten looks: what a call waits before anything
 * is done for it. Its timer does not keep the process alive.
 */
export class LoopDelay {
  readonly #timer: NodeJS.Timeout;
  readonly #now: () => number;
  #lookedAt: number;
  #delayMs = 0;

  /** `now` is in milliseconds and never goes back. */
  constructor(now = () => performance.now()) {
    this.#now = now;
    this.#lookedAt = now();
    this.#timer = setInterval(() => {
      const lookedAt = this.#now();
      const late = Math.min(LATE_MS_MAX, Math.max(0, lookedAt - this.#lookedAt - LOOK_INTERVAL_MS));
      this.#delayMs += WEIGHT * (late - this.#delayMs);
      this.#lookedAt = lookedAt;
    }, LOOK_INTERVAL_MS).unref();
  }

  get ms(): number {
    return this.#delayMs;
  }

  /** The same, and at least what the next look is late by now: much can come in one turn of the loop, before any look. */
  get msNow(): number {
    return Math.max(this.#delayMs, this.#now() - this.#lookedAt - LOOK_INTERVAL_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}
