import type { ChangeKey } from "../inventory/change-history.ts";
import { idReused } from "../inventory/refusals.ts";

interface Done {
  readonly fingerprint: string;
  readonly changes: readonly ChangeKey[];
  readonly forgetAt: number;
}

/** The fields that name the ID of an operation. */
export const OPERATION_FIELDS = ["count_id", "adjustment_id", "return_id"] as const;
export type OperationField = (typeof OPERATION_FIELDS)[number];

/** The operations done, by the IDs that callers gave them, kept for as long as retries are expected. */
export class Operations {
  readonly #done = new Map<string, Done>();
  readonly #now: () => number;
  readonly #retentionMs: number;

  constructor(now: () => number, retentionMs: number) {
    this.#now = now;
    this.#retentionMs = retentionMs;
  }

  /** Whether the operation was done before. `field` names the ID. Throws `ID_REUSED` if the ID belongs to another one. */
  wasDone(field: OperationField, id: string, fingerprint: string): boolean {
    const known = this.#done.get(`${field}:${id}`);
    if (known === undefined || known.forgetAt <= this.#now()) {
      return false;
    }
    if (known.fingerprint !== fingerprint) {
      throw idReused(field, id);
    }
    return true;
  }

  /** The changes of all operations with this ID. `undefined` if there are none. */
  changesOf(id: string): readonly ChangeKey[] | undefined {
    const done = OPERATION_FIELDS.flatMap((field) => this.#done.get(`${field}:${id}`) ?? []).filter(
      ({ forgetAt }) => forgetAt > this.#now(),
    );
    return done.length === 0 ? undefined : done.flatMap(({ changes }) => changes);
  }

  remember(field: OperationField, id: string, fingerprint: string, changes: readonly ChangeKey[]): void {
    const now = this.#now();
    // Insertion order is age order, so expired entries come first.
    for (const [key, { forgetAt }] of this.#done) {
      if (forgetAt > now) {
        break;
      }
      this.#done.delete(key);
    }
    this.#done.set(`${field}:${id}`, { fingerprint, changes, forgetAt: now + this.#retentionMs });
  }
}
