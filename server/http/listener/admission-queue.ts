/** Milliseconds per event loop turn that may be spent on admitting. It bounds the delay of fast-path calls, which are not queued. */
const ADMISSION_MS_PER_TURN_MAX = 5;
/** Admissions per event loop turn, at most. */
const ADMISSIONS_PER_TURN_MAX = 64;

type Start = () => void;

/**
 * Admission control for new connections and for expensive requests. They are admitted within a time budget per event loop turn. Without
 * it, a burst (a thousand connections with a hundred streams each) is processed in a single turn, and every established client waits
 * for all of it.
 *
 * Fair queueing: the connection with the fewest waiting requests goes first. A connection's third request waits for the first three
 * of every other connection and not for their hundredth, so a burst over few connections delays mostly itself. The length of the queue
 * is bounded by the listener's limits on connections and on streams per connection.
 */
export class AdmissionQueue {
  /** The index is the number of requests of the same connection that were waiting on arrival. New connections are in queue 0. */
  readonly #queues: Start[][] = [];
  readonly #waitingByConnection = new Map<object, number>();
  #waiting = 0;
  #turnStartedAt = 0;
  #isTurnScheduled = false;

  /** Calls `start` now if this turn has budget left and nothing is waiting; otherwise in a later turn. */
  admit(connection: object, start: Start): void {
    if (this.#hasBudget()) {
      start();
      return;
    }
    const before = this.#waitingByConnection.get(connection) ?? 0;
    this.#waitingByConnection.set(connection, before + 1);
    this.#queues[before] ??= [];
    this.#queues[before].push(() => {
      const left = (this.#waitingByConnection.get(connection) ?? 0) - 1;
      if (left > 0) this.#waitingByConnection.set(connection, left);
      else this.#waitingByConnection.delete(connection);
      start();
    });
    this.#waiting += 1;
  }

  #hasBudget(): boolean {
    if (!this.#isTurnScheduled) {
      this.#isTurnScheduled = true;
      this.#turnStartedAt = performance.now();
      setImmediate(this.#onTurn);
    }
    return this.#waiting === 0 && performance.now() - this.#turnStartedAt < ADMISSION_MS_PER_TURN_MAX;
  }

  readonly #onTurn = (): void => {
    this.#isTurnScheduled = this.#waiting > 0;
    if (this.#waiting === 0) return;
    // One immediate per admission: Node runs the microtasks and ticks of one before the next, so their time counts against the budget.
    for (let index = 0; index < Math.min(this.#waiting, ADMISSIONS_PER_TURN_MAX); index += 1) {
      setImmediate(this.#admitNext, index === 0);
    }
    setImmediate(this.#onTurn);
  };

  readonly #admitNext = (isFirstOfTurn: boolean): void => {
    const now = performance.now();
    if (isFirstOfTurn) this.#turnStartedAt = now;
    if (now - this.#turnStartedAt >= ADMISSION_MS_PER_TURN_MAX) return;
    const start = this.#queues.find((queue) => queue.length > 0)?.shift();
    if (start !== undefined) {
      this.#waiting -= 1;
      start();
    }
  };
}
