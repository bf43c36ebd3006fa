import { idReused } from "../inventory/refusals.ts";

/** Which operations were done, by the IDs that callers gave them, for as long as retries may come. */
export class Operations {
  readonly #done = new Map<string, { readonly fingerprint: string; readonly forgetAt: number }>();
  readonly #now: () => number;
  readonly #retentionMs: number;

  constructor(now: () => number, retentionMs: number) {
    this.#now = now;
    this.#retentionMs = retentionMs;
  }

  /** Whether the operation was done before. `field` names the ID. Throws `ID_REUSED` where it stands for another. */
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
    // Insertion order is order of age, so the ones to forget stand first.
    for (const [key, { forgetAt }] of this.#done) {
      if (forgetAt > now) {
        break;
      }
      this.#done.delete(key);
    }
    this.#done.set(`${field}:${id}`, { fingerprint, forgetAt: now + this.#retentionMs });
  }
}
