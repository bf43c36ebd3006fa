/** Milliseconds of one turn of the event loop in which connections and requests may begin. Calls on the lane wait for no more than that. */
const BEGINNING_MS_MAX = 5;
/** How many begin in one turn, at most. */
const PER_TURN_MAX = 64;

type Begin = () => void;

/**
 * Lets connections, and requests that cost much, begin one after the other, for a few milliseconds in each turn of the event loop. A
 * thousand connections that bring a hundred streams each are read in one turn otherwise, and whoever has called before waits for them all.
 *
 * Whoever has least waiting goes first: a connection's third request waits for the first three of others, and not for their hundredth, so
 * that a crowd on few connections delays itself. No more wait than the listener has connections, and streams on them.
 */
export class AdmissionQueue {
  /** By how many of the same connection waited when they came. New connections are among the first. */
  readonly #queues: Begin[][] = [];
  readonly #waitingOf = new Map<object, number>();
  #waiting = 0;
  #turnBeganAt = 0;
  #isTurnAwaited = false;

  /** Begins a connection, or a request on it, now or in one of the next turns. */
  add(connection: object, begin: Begin): void {
    if (this.#hasTime()) {
      begin();
      return;
    }
    const before = this.#waitingOf.get(connection) ?? 0;
    this.#waitingOf.set(connection, before + 1);
    this.#queues[before] ??= [];
    this.#queues[before].push(() => {
      const left = (this.#waitingOf.get(connection) ?? 0) - 1;
      if (left > 0) this.#waitingOf.set(connection, left);
      else this.#waitingOf.delete(connection);
      begin();
    });
    this.#waiting += 1;
  }

  /** Whether one more may begin in this turn, and none has come before it. */
  #hasTime(): boolean {
    if (!this.#isTurnAwaited) {
      this.#isTurnAwaited = true;
      this.#turnBeganAt = performance.now();
      setImmediate(this.#onTurn);
    }
    return this.#waiting === 0 && performance.now() - this.#turnBeganAt < BEGINNING_MS_MAX;
  }

  readonly #onTurn = (): void => {
    this.#isTurnAwaited = this.#waiting > 0;
    if (this.#waiting === 0) return;
    // An immediate for each: what one of them sets going is done before the next, so that its time counts.
    for (let each = 0; each < Math.min(this.#waiting, PER_TURN_MAX); each += 1) {
      setImmediate(this.#onNext, each === 0);
    }
    setImmediate(this.#onTurn);
  };

  readonly #onNext = (isFirstOfTurn: boolean): void => {
    const now = performance.now();
    if (isFirstOfTurn) this.#turnBeganAt = now;
    if (now - this.#turnBeganAt >= BEGINNING_MS_MAX) return;
    const begin = this.#queues.find((queue) => queue.length > 0)?.shift();
    if (begin !== undefined) {
      this.#waiting -= 1;
      begin();
    }
  };
}
