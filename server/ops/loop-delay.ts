/** Milliseconds between two looks. Often enough to see a jam within a few calls' time. */
const LOOK_INTERVAL_MS = 20;
/** What one look counts against all before it: a pause of 100 ms for garbage raises the figure by 20. */
const WEIGHT = 0.2;

/**
 * How late the event loop is, in milliseconds, smoothed over some ten looks: what a call waits before anything
 * is done for it. Its timer does not keep the process alive.
 */
export class LoopDelay {
  readonly #timer: NodeJS.Timeout;
  #lookedAt = performance.now();
  #delayMs = 0;

  constructor() {
    this.#timer = setInterval(() => {
      const now = performance.now();
      const late = Math.max(0, now - this.#lookedAt - LOOK_INTERVAL_MS);
      this.#delayMs += WEIGHT * (late - this.#delayMs);
      this.#lookedAt = now;
    }, LOOK_INTERVAL_MS).unref();
  }

  get ms(): number {
    return this.#delayMs;
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}
