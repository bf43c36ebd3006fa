import { type ChangeKey, CORRECTIONS_NAMED_MAX, type ReferenceTrace } from "../inventory/change-history.ts";
import { idReused } from "../inventory/refusals.ts";

/** The fields that name the ID of an operation. */
export type OperationField = "count_id" | "adjustment_id" | "return_id";

/** Identifies an operation. Its ID is unique per field and owner. */
export interface OperationKey {
  readonly field: OperationField;
  /** The product of a count or adjustment, the reservation of a return. */
  readonly ownerId: string;
  readonly id: string;
}

interface Done extends OperationKey {
  readonly fingerprint: string;
  changes: readonly ChangeKey[];
  readonly forgetAt: number;
}

/** The operations done, by the IDs that callers gave them, kept for as long as retries are expected. */
export class Operations {
  readonly #byId = new Map<string, Done[]>();
  /** In insertion order, which is age order. */
  readonly #byAge = new Set<Done>();
  readonly #now: () => number;
  readonly #retentionMs: number;

  constructor(now: () => number, retentionMs: number) {
    this.#now = now;
    this.#retentionMs = retentionMs;
  }

  /** Whether the operation was done before. Throws `ID_REUSED` if it was done with another fingerprint. */
  wasDone(key: OperationKey, fingerprint: string): boolean {
    const known = this.fingerprintOf(key);
    if (known !== undefined && known !== fingerprint) {
      throw idReused(key.field, key.id);
    }
    return known !== undefined;
  }

  /** The fingerprint of the operation, if it was done. */
  fingerprintOf(key: OperationKey): string | undefined {
    return this.#find(key)?.fingerprint;
  }

  /** Adds a change that the operation has made to those that `traceOf` names. */
  addChange(key: OperationKey, change: ChangeKey): void {
    const done = this.#find(key);
    if (done !== undefined) {
      done.changes = [...done.changes, change];
    }
  }

  /** The latest changes of all operations with this ID. */
  traceOf(id: string): Pick<ReferenceTrace, "corrections" | "lacksCorrections"> {
    const done = this.#kept(id);
    const changes = done.flatMap((each) => each.changes).slice(-CORRECTIONS_NAMED_MAX);
    return {
      corrections: done.length === 0 ? undefined : changes,
      lacksCorrections: changes.length >= CORRECTIONS_NAMED_MAX,
    };
  }

  remember(key: OperationKey, fingerprint: string, changes: readonly ChangeKey[]): void {
    const now = this.#now();
    for (const done of this.#byAge) {
      if (done.forgetAt > now) {
        break;
      }
      this.#forget(done);
    }
    const done = { ...key, fingerprint, changes, forgetAt: now + this.#retentionMs };
    this.#byAge.add(done);
    const others = this.#byId.get(key.id);
    if (others === undefined) {
      this.#byId.set(key.id, [done]);
    } else {
      others.push(done);
    }
  }

  #find({ field, ownerId, id }: OperationKey): Done | undefined {
    return this.#kept(id).find((done) => done.field === field && done.ownerId === ownerId);
  }

  #kept(id: string): readonly Done[] {
    return (this.#byId.get(id) ?? []).filter(({ forgetAt }) => forgetAt > this.#now());
  }

  #forget(done: Done): void {
    this.#byAge.delete(done);
    const others = (this.#byId.get(done.id) ?? []).filter((other) => other !== done);
    if (others.length === 0) {
      this.#byId.delete(done.id);
    } else {
      this.#byId.set(done.id, others);
    }
  }
}
