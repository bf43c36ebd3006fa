import { idReused } from "../inventory/refusals.ts";

/** The operations done, by the IDs that callers gave them, kept for as long as retries are expected. */
export class Operations {
  readonly #done = new Map<string, { readonly fingerprint: string; readonly forgetAt: number }>();
  readonly #now: () => number;
  readonly #retentionMs: number;

  constructor(now: () => number, retentionMs: number) {
    this.#now = now;
    this.#retentionMs = retentionMs;
  }

  /** Whether the operation was done before. `field` names the ID. Throws `ID_REUSED` if the ID belongs to another one. */
  wasDone(field: string, id: string, fingerprint: string): boolean {
    const known = this.#done.get(`${field}:${id}`);
    if (known === undefined || known.forgetAt <= this.#now()) {
      return false;
    }
    if (known.fingerprint !== fingerprint) {
      throw idReused(field, id);
    }
    return true;
  }

  remember(field: string, id: string, fingerprint: string): void {
    const now = this.#now();
    // Insertion order is age order, so expired entries come first.
    for (const [key, { forgetAt }] of this.#done) {
      if (forgetAt > now) {
        break;
      }
      this.#done.delete(key);
    }
    this.#done.set(`${field}:${id}`, { fingerprint, forgetAt: now + this.#retentionMs });
  }
}
