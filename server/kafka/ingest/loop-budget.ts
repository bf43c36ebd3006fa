/** Time that event processing may take of one turn of the event loop. */
const TURN_MS_MAX = 5;

/**
 * Divides the processing of events into turns of the event loop, so that calls and timers are not delayed by more than
 * about one turn. All partitions share the budget: each turn of the loop resumes one of those that wait. It has the time of
 * a turn, however many wait.
 */
export class LoopBudget {
  readonly #waiting: (() => void)[] = [];
  #turnStartedAt = performance.now();

  /** True if the turn's time is spent. The caller then awaits `nextTurn`. */
  get isSpent(): boolean {
    return performance.now() - this.#turnStartedAt > TURN_MS_MAX;
  }

  /** Resolves in a later turn of the loop, after I/O. */
  nextTurn(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    if (this.#waiting.length === 1) {
      setImmediate(() => this.#resumeNext());
    }
    return promise;
  }

  /** Runs a synchronous computation that yields at intervals, in turns. */
  async run<T>(steps: Generator<void, T>): Promise<T> {
    for (;;) {
      const { done, value } = steps.next();
      if (done === true) {
        return value;
      }
      if (this.isSpent) {
        await this.nextTurn();
      }
    }
  }

  #resumeNext(): void {
    const resume = this.#waiting.shift();
    this.#turnStartedAt = performance.now();
    resume?.();
    if (this.#waiting.length > 0) {
      setImmediate(() => this.#resumeNext());
    }
  }
}
