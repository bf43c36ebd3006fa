/** The delays between attempts: each is twice as long as the one before, from `minMs` up to `maxMs`. */
export class Backoff {
  readonly #minMs: number;
  readonly #maxMs: number;
  #nextMs: number;

  constructor(minMs: number, maxMs: number) {
    this.#minMs = minMs;
    this.#maxMs = maxMs;
    this.#nextMs = minMs;
  }

  /** The delay before the next attempt, ms. */
  next(): number {
    const delayMs = this.#nextMs;
    this.#nextMs = Math.min(delayMs * 2, this.#maxMs);
    return delayMs;
  }

  /** To be called after a success: the next delay is the first one again. */
  reset(): void {
    this.#nextMs = this.#minMs;
  }
}
