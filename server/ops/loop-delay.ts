/** Interval between samples, ms: short enough to detect a delay within the duration of a few calls. */
const SAMPLE_INTERVAL_MS = 20;
/** Weight of one sample in the moving average: a garbage collection of 100 ms raises the average by 20. */
const WEIGHT = 0.2;
/**
 * Upper bound of one sample, ms. One long turn of the loop is over before a call can be rejected for it, and must not cause
 * rejections afterwards: it raises the average by 1,000, half of the default limit for authenticated clients.
 */
const SAMPLE_MS_MAX = 5_000;

/**
 * The delay of the event loop in milliseconds, as a moving average over about ten samples: the time for which
 * a call waits before it is processed. The timer does not keep the process alive.
 */
export class LoopDelay {
  readonly #timer: NodeJS.Timeout;
  readonly #now: () => number;
  #sampledAt: number;
  #delayMs = 0;

  /** `now` is a monotonic clock in milliseconds. */
  constructor(now = () => performance.now()) {
    this.#now = now;
    this.#sampledAt = now();
    this.#timer = setInterval(() => {
      const sampledAt = this.#now();
      const late = Math.min(SAMPLE_MS_MAX, Math.max(0, sampledAt - this.#sampledAt - SAMPLE_INTERVAL_MS));
      this.#delayMs += WEIGHT * (late - this.#delayMs);
      this.#sampledAt = sampledAt;
    }, SAMPLE_INTERVAL_MS).unref();
  }

  get ms(): number {
    return this.#delayMs;
  }

  /** The average, and at least the current lateness of the next sample: many calls can arrive in one turn of the loop. */
  get msNow(): number {
    return Math.max(this.#delayMs, this.#now() - this.#sampledAt - SAMPLE_INTERVAL_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}
