/** Forgets IDs a fixed time after they were last given to `keep`. */
export class Retention {
  /** By ID the time at which it is forgotten, ms since 1970. In insertion order, which is the order of these times. */
  readonly #forgetAt = new Map<string, number>();
  readonly #now: () => number;
  readonly #retentionMs: number;
  readonly #forget: (id: string) => void;

  constructor(now: () => number, retentionMs: number, forget: (id: string) => void) {
    this.#now = now;
    this.#retentionMs = retentionMs;
    this.#forget = forget;
  }

  /** Keeps the ID for the retention, counted from now. */
  keep(id: string): void {
    this.#forgetAt.delete(id);
    this.#forgetAt.set(id, this.#now() + this.#retentionMs);
  }

  /** Keeps the ID until its end, which is the next call of `keep`. */
  keepUntilEnd(id: string): void {
    this.#forgetAt.delete(id);
  }

  forgetDue(): void {
    for (const [id, forgetAt] of this.#forgetAt) {
      if (forgetAt > this.#now()) {
        return;
      }
      this.#forgetAt.delete(id);
      this.#forget(id);
    }
  }
}
