import { RETURNS_NAMED_MAX, type ReservationTrace } from "../inventory/change-history.ts";
import { QUANTITY_MAX } from "../inventory/ledger.ts";
import { compareIds, type ReservationState } from "../inventory/reservation.ts";
import type {
  Commit,
  CommitReply,
  Decide,
  DecideReply,
  Effect,
  EffectCause,
  Extend,
  ExtendReply,
  Read,
  ReadReply,
  Refuse,
  RefuseReply,
  Release,
  ReleaseReply,
  Return,
  ReturnReply,
  Revive,
  ReviveReply,
  Settle,
} from "../inventory/sharded/messages.ts";
import type { Operations } from "./operations.ts";
import {
  deadlineOf,
  effectOf,
  newestEffect,
  type ReservationRecord,
  reservationOf,
  unitsToSell,
} from "./reservation-record.ts";
import { Retention } from "./retention.ts";

/** What the home bucket of a reservation knows of it. */
interface Entry {
  /** Attempts up to this epoch can no longer be decided. */
  refused: number;
  record: ReservationRecord | undefined;
  /** Effects that some bucket may not have applied yet, oldest first. */
  effects: readonly Effect[];
}

/** The decisions about the reservations whose home is one bucket. Every method is an atomic step. */
export class Decisions {
  readonly entries = new Map<string, Entry>();
  /** Reservations with effects that are not settled, with the time since when, ms since 1970. */
  readonly owed = new Map<string, number>();
  readonly #retention: Retention;
  readonly #operations: Operations;
  readonly #now: () => number;

  constructor(operations: Operations, now: () => number, retentionMs: number) {
    this.#operations = operations;
    this.#now = now;
    this.#retention = new Retention(now, retentionMs, (id) => this.entries.delete(id));
  }

  read({ reservationId }: Read): ReadReply {
    this.#retention.forgetDue();
    const entry = this.entries.get(reservationId);
    return entry?.record === undefined
      ? { status: "absent", nextEpoch: nextEpochOf(entry) }
      : { ...decided(entry.record, entry.effects), fingerprint: entry.record.fingerprint };
  }

  decide({ reservationId, epoch, fingerprint, lines, ttlMs }: Decide): DecideReply {
    this.#retention.forgetDue();
    const entry = this.#entry(reservationId);
    if (entry.record !== undefined) {
      if (entry.record.fingerprint === undefined) {
        return { status: "released_before" };
      }
      return entry.record.fingerprint === fingerprint
        ? decided(entry.record, entry.effects)
        : { status: "reused" };
    }
    if (epoch !== entry.refused + 1) {
      return { status: "refused", nextEpoch: nextEpochOf(entry) };
    }
    this.entries.set(reservationId, entry);
    const now = this.#now();
    entry.record = {
      reservationId,
      state: "active",
      lines,
      fingerprint,
      createTimeMs: now,
      expireTimeMs: now + ttlMs,
      endTimeMs: undefined,
      sold: [],
      left: [],
      returnIds: [],
      revived: false,
      epoch,
      attemptFingerprint: fingerprint,
      revision: 0,
    };
    this.#retention.keepUntilEnd(reservationId);
    return decided(entry.record, entry.effects);
  }

  refuse({ reservationId, epoch }: Refuse): RefuseReply {
    this.#retention.forgetDue();
    const entry = this.#entry(reservationId);
    const { record } = entry;
    if (record?.attemptFingerprint !== undefined && record.epoch === epoch) {
      const effects = entry.effects.length > 0 ? entry.effects : [newestEffect(record)];
      return { status: "decided", fingerprint: record.attemptFingerprint, effects };
    }
    entry.refused = Math.max(entry.refused, epoch);
    this.entries.set(reservationId, entry);
    if (record === undefined) {
      this.#retention.keep(reservationId);
    }
    return { status: "refused", nextEpoch: nextEpochOf(entry) };
  }

  commit({ reservationId, lines, strict, actor }: Commit): CommitReply {
    this.#retention.forgetDue();
    const entry = this.entries.get(reservationId);
    const record = entry?.record;
    if (entry === undefined || record === undefined) {
      return { status: "missing" };
    }
    if (record.state === "released") {
      return { status: "ended", state: "released" };
    }
    const sold = unitsToSell(record, lines);
    if (!Array.isArray(sold)) {
      return { status: "too_large", ...sold };
    }
    if (record.state === "committed") {
      return sold.every((quantity, index) => quantity === record.sold[index])
        ? decided(record, entry.effects)
        : { status: "reused" };
    }
    const isExpired = record.state === "expired" || this.#isDue(record);
    if (isExpired && strict) {
      return { status: "ended", state: "expired" };
    }
    if (record.state === "expired") {
      return {
        status: "expired",
        nextEpoch: nextEpochOf(entry),
        sold: record.lines.flatMap(({ productId }, index) => {
          const quantity = sold[index] ?? 0;
          return quantity === 0 ? [] : [{ productId, quantity }];
        }),
        effects: entry.effects,
      };
    }
    // A reservation that is due still holds its units until it is swept.
    return this.#sell(entry, record, sold, isExpired, actor);
  }

  revive({ reservationId, epoch, fingerprint, lines, actor }: Revive): ReviveReply {
    this.#retention.forgetDue();
    const entry = this.entries.get(reservationId);
    const record = entry?.record;
    const isRepeated = record?.epoch === epoch && record.attemptFingerprint === fingerprint;
    if (entry !== undefined && record?.state === "committed" && isRepeated) {
      return decided(record, entry.effects);
    }
    if (entry === undefined || record?.state !== "expired" || epoch !== nextEpochOf(entry)) {
      return { status: "refused", nextEpoch: nextEpochOf(entry) };
    }
    record.epoch = epoch;
    record.attemptFingerprint = fingerprint;
    const sold = record.lines.map(
      ({ productId }) => lines.find((line) => line.productId === productId)?.quantity ?? 0,
    );
    return this.#sell(entry, record, sold, true, actor);
  }

  release({ reservationId, actor }: Release): ReleaseReply {
    this.#retention.forgetDue();
    const entry = this.#entry(reservationId);
    const record = entry.record ?? this.#tombstone(reservationId);
    entry.record = record;
    this.entries.set(reservationId, entry);
    switch (record.state) {
      case "committed":
        return { status: "ended", state: "committed" };
      case "active":
        this.#end(entry, record, "released", actor);
        break;
      case "expired":
        // Its units are already returned. The release prevents a late commit from reviving it.
        record.state = "released";
        record.endTimeMs = this.#now();
        if (entry.effects.length === 0) {
          this.#retention.keep(reservationId);
        }
        break;
      case "released":
        break;
    }
    return decided(record, entry.effects);
  }

  extend({ reservationId, ttlMs }: Extend): ExtendReply {
    this.#retention.forgetDue();
    const entry = this.entries.get(reservationId);
    const record = entry?.record;
    if (entry === undefined || record === undefined) {
      return { status: "missing" };
    }
    if (record.state !== "active" || this.#isDue(record)) {
      return { status: "ended", state: record.state === "active" ? "expired" : record.state };
    }
    record.expireTimeMs = this.#now() + ttlMs;
    return decided(record, entry.effects);
  }

  return({ reservationId, returnId, fingerprint, lines, actor }: Return): ReturnReply {
    this.#retention.forgetDue();
    const entry = this.entries.get(reservationId);
    const record = entry?.record;
    if (entry === undefined || record === undefined) {
      return { status: "missing" };
    }
    const operation = { field: "return_id", ownerId: reservationId, id: returnId } as const;
    const known = this.#operations.fingerprintOf(operation);
    if (known !== undefined) {
      return known === fingerprint ? decided(record, entry.effects) : { status: "reused" };
    }
    if (record.state !== "committed") {
      return { status: "ended", state: record.state };
    }
    const indexOf = (productId: string) => record.lines.findIndex((line) => line.productId === productId);
    const other = lines.find(({ productId }) => indexOf(productId) < 0);
    if (other !== undefined) {
      return { status: "other", productId: other.productId };
    }
    for (const { productId, quantity, onHand = 0 } of lines) {
      const left = record.left[indexOf(productId)] ?? 0;
      if (quantity > left) {
        return { status: "too_large", productId, left };
      }
      if (onHand + quantity > QUANTITY_MAX) {
        return { status: "range", productId, onHand };
      }
    }
    for (const { productId, quantity } of lines) {
      const index = indexOf(productId);
      record.left[index] = (record.left[index] ?? 0) - quantity;
    }
    this.#operations.remember(operation, fingerprint, []);
    record.returnIds = [...record.returnIds, returnId].slice(-RETURNS_NAMED_MAX);
    this.#owe(entry, record, "returned", returnId, actor);
    return decided(record, entry.effects);
  }

  settle({ reservationId, revision }: Settle): { readonly status: "ok" } {
    const entry = this.entries.get(reservationId);
    if (entry !== undefined) {
      entry.effects = entry.effects.filter((effect) => effect.revision > revision);
      if (entry.effects.length === 0) {
        this.owed.delete(reservationId);
        if (entry.record?.state !== "active") {
          this.#retention.keep(reservationId);
        }
      }
    }
    return { status: "ok" };
  }

  /** Expires up to `limit` reservations whose deadline has passed, earliest first. Returns them with their effects. */
  expireDue(
    limit: number,
    actor: string,
  ): { readonly record: ReservationRecord; readonly effects: readonly Effect[] }[] {
    return this.active()
      .filter((record) => this.#isDue(record))
      .slice(0, limit)
      .map((record) => {
        const entry = this.#entry(record.reservationId);
        this.#end(entry, record, "expired", actor);
        return { record, effects: entry.effects };
      });
  }

  /** The active reservations, by deadline and ID. */
  active(): ReservationRecord[] {
    return [...this.entries.values()]
      .flatMap(({ record }) => (record?.state === "active" ? [record] : []))
      .sort((a, b) => deadlineOf(a) - deadlineOf(b) || compareIds(a.reservationId, b.reservationId));
  }

  /** What the record says about the changes of the reservation. `undefined` if there is none. */
  traceOf(reservationId: string): ReservationTrace | undefined {
    this.#retention.forgetDue();
    const record = this.entries.get(reservationId)?.record;
    return (
      record && {
        productIds: record.lines.map(({ productId }) => productId),
        expireTimeMs: record.expireTimeMs,
        returnIds: record.returnIds,
        lacksReturns: record.returnIds.length >= RETURNS_NAMED_MAX,
      }
    );
  }

  #sell(
    entry: Entry,
    record: ReservationRecord,
    sold: readonly number[],
    revived: boolean,
    actor: string | undefined,
  ): CommitReply & ReviveReply {
    record.sold = sold;
    record.left = [...sold];
    record.revived = revived;
    this.#end(entry, record, "committed", actor);
    return decided(record, entry.effects);
  }

  #end(
    entry: Entry,
    record: ReservationRecord,
    state: Exclude<ReservationState, "active">,
    actor: string | undefined,
  ): void {
    record.state = state;
    record.endTimeMs = this.#now();
    this.#owe(entry, record, state, record.reservationId, actor);
  }

  #owe(
    entry: Entry,
    record: ReservationRecord,
    cause: EffectCause,
    referenceId: string,
    actor: string | undefined,
  ): void {
    record.revision += 1;
    entry.effects = [...entry.effects, effectOf(record, cause, referenceId, actor)];
    this.owed.set(record.reservationId, this.#now());
    this.#retention.keepUntilEnd(record.reservationId);
  }

  #tombstone(reservationId: string): ReservationRecord {
    this.#retention.keep(reservationId);
    return {
      reservationId,
      state: "released",
      lines: [],
      fingerprint: undefined,
      createTimeMs: this.#now(),
      expireTimeMs: undefined,
      endTimeMs: this.#now(),
      sold: [],
      left: [],
      returnIds: [],
      revived: false,
      epoch: 0,
      attemptFingerprint: undefined,
      revision: 0,
    };
  }

  #entry(reservationId: string): Entry {
    return this.entries.get(reservationId) ?? { refused: 0, record: undefined, effects: [] };
  }

  #isDue(record: ReservationRecord): boolean {
    return record.state === "active" && deadlineOf(record) <= this.#now();
  }
}

function decided(record: ReservationRecord, effects: readonly Effect[]) {
  return { status: "ok", reservation: reservationOf(record), effects } as const;
}

function nextEpochOf(entry: Entry | undefined): number {
  return Math.max(entry?.refused ?? 0, entry?.record?.epoch ?? 0) + 1;
}
