import { EXPIRY_ACTOR } from "../inventory/actor.ts";
import { type ChangeKey, RETURNS_NAMED_MAX, type ReservationTrace } from "../inventory/change-history.ts";
import type { ShortLine } from "../inventory/errors.ts";
import { available, leavesRange, onHand } from "../inventory/ledger.ts";
import { fingerprint } from "../inventory/operation.ts";
import { isDeleted } from "../inventory/product-event.ts";
import {
  idReused,
  notInReservation,
  releasedBeforeReserved,
  reservationEnded,
  reservationUnknown,
  returnOutOfRange,
  returnTooLarge,
  stockShort,
} from "../inventory/refusals.ts";
import {
  compareIds,
  type ExpiredReservation,
  linesFingerprint,
  positionOf,
  type Reservation,
  type ReservationState,
  sumLines,
} from "../inventory/reservation.ts";
import type {
  CommitRequest,
  ProductReservations,
  ReservationStore,
  ReservationsPage,
  ReserveRequest,
  ReturnRequest,
} from "../inventory/store.ts";
import type { Operations } from "./operations.ts";
import { ledgerOf, type Products } from "./products.ts";
import { deadlineOf, quantitiesToSell, type ReservationRecord, reservationOf } from "./reservation-record.ts";

/** The reservations of the memory store. */
export class Reservations implements ReservationStore {
  readonly #records = new Map<string, ReservationRecord>();
  /** Ended reservations with the time until which they are kept, earliest first. */
  readonly #ended = new Map<string, number>();
  readonly #products: Products;
  readonly #operations: Operations;
  readonly #now: () => number;
  readonly #retentionMs: number;

  constructor(products: Products, operations: Operations, now: () => number, retentionMs: number) {
    this.#products = products;
    this.#operations = operations;
    this.#now = now;
    this.#retentionMs = retentionMs;
  }

  async reserve({ reservationId, ttlMs, actor, ...request }: ReserveRequest): Promise<Reservation> {
    this.#forget();
    const lines = sumLines(request.lines);
    const contentFingerprint = linesFingerprint(lines);
    const known = this.#records.get(reservationId);
    if (known !== undefined) {
      if (known.fingerprint === undefined) {
        throw releasedBeforeReserved(reservationId);
      }
      if (known.fingerprint !== contentFingerprint) {
        throw idReused("reservation_id", reservationId);
      }
      return reservationOf(known);
    }
    const products = lines.map(({ productId }) => this.#products.visible(productId));
    const shortage: ShortLine[] = [];
    for (const [index, { productId, quantity }] of lines.entries()) {
      const product = products[index];
      const left = product ? available(ledgerOf(product)) : 0;
      if (left < quantity) {
        shortage.push({ productId, requested: quantity, available: left, version: product?.version });
      }
    }
    if (shortage.length > 0) {
      throw stockShort(shortage);
    }
    const now = this.#now();
    const record: ReservationRecord = {
      reservationId,
      state: "active",
      lines,
      fingerprint: contentFingerprint,
      createTimeMs: now,
      expireTimeMs: now + ttlMs,
      endTimeMs: undefined,
      sold: [],
      left: [],
      returnIds: [],
      revived: false,
    };
    this.#records.set(reservationId, record);
    for (const [index, { quantity }] of lines.entries()) {
      const product = products[index];
      if (product !== undefined) {
        this.#products.change(product, { cause: "reserved", referenceId: reservationId, actor }, () => {
          product.reserved += quantity;
        });
      }
    }
    return reservationOf(record);
  }

  async commit({ reservationId, lines, strict, actor }: CommitRequest): Promise<Reservation> {
    const record = this.#known(reservationId);
    if (record.state === "released") {
      throw reservationEnded("commit", reservationId, "released");
    }
    const sold = quantitiesToSell(record, lines);
    if (record.state === "committed") {
      if (sold.some((quantity, index) => quantity !== record.sold[index])) {
        throw idReused("reservation_id", reservationId);
      }
      return reservationOf(record);
    }
    const isHeld = record.state === "active";
    const isExpired = !isHeld || this.#isDue(record);
    if (isExpired) {
      if (strict) {
        throw reservationEnded("commit", reservationId, "expired");
      }
      this.#checkUnitsAvailable(record, sold, isHeld);
    }
    for (const [index, { productId, quantity }] of record.lines.entries()) {
      const units = sold[index] ?? 0;
      const held = isHeld ? quantity : 0;
      if (held > 0 || units > 0) {
        const product = this.#products.known(productId);
        const cause = units > 0 ? "committed" : "released";
        this.#products.change(product, { cause, referenceId: reservationId, actor }, () => {
          product.reserved -= held;
          product.sold += units;
        });
      }
    }
    record.sold = sold;
    record.left = [...sold];
    record.revived = isExpired;
    this.#end(record, "committed");
    return reservationOf(record);
  }

  async release(reservationId: string, actor?: string): Promise<Reservation> {
    this.#forget();
    const record = this.#records.get(reservationId) ?? this.#tombstone(reservationId);
    switch (record.state) {
      case "committed":
        throw reservationEnded("release", reservationId, "committed");
      case "active":
        this.#giveBack(record, "released", actor);
        this.#end(record, "released");
        break;
      case "expired":
        // Its units are already returned. The release prevents a late commit from reviving it.
        this.#end(record, "released");
        break;
      case "released":
        break;
    }
    return reservationOf(record);
  }

  async extend(reservationId: string, ttlMs: number): Promise<Reservation> {
    const record = this.#known(reservationId);
    if (record.state !== "active" || this.#isDue(record)) {
      throw reservationEnded("extend", reservationId, record.state === "active" ? "expired" : record.state);
    }
    record.expireTimeMs = this.#now() + ttlMs;
    return reservationOf(record);
  }

  async return({ reservationId, returnId, actor, ...request }: ReturnRequest): Promise<Reservation> {
    const record = this.#known(reservationId);
    const lines = sumLines(request.lines);
    const contentFingerprint = fingerprint([reservationId, linesFingerprint(lines)]);
    const operation = { field: "return_id", ownerId: reservationId, id: returnId } as const;
    if (this.#operations.wasDone(operation, contentFingerprint)) {
      return reservationOf(record);
    }
    if (record.state !== "committed") {
      throw reservationEnded("return units of", reservationId, record.state);
    }
    const indexes = lines.map(({ productId }) => {
      const index = record.lines.findIndex((line) => line.productId === productId);
      if (index < 0) {
        throw notInReservation(request.lines, productId);
      }
      return index;
    });
    for (const [n, { productId, quantity }] of lines.entries()) {
      const left = record.left[indexes[n] ?? -1] ?? 0;
      if (quantity > left) {
        throw returnTooLarge(productId, quantity, left);
      }
      const ledger = ledgerOf(this.#products.known(productId));
      if (leavesRange(ledger, { ...ledger, sold: ledger.sold - quantity })) {
        throw returnOutOfRange(productId, quantity, onHand(ledger));
      }
    }
    const changes: ChangeKey[] = [];
    for (const [n, { productId, quantity }] of lines.entries()) {
      const index = indexes[n] ?? -1;
      record.left[index] = (record.left[index] ?? 0) - quantity;
      const product = this.#products.known(productId);
      this.#products.change(product, { cause: "returned", referenceId: returnId, actor }, () => {
        product.sold -= quantity;
      });
      changes.push({ productId, version: product.version });
    }
    this.#operations.remember(operation, contentFingerprint, changes);
    record.returnIds = [...record.returnIds, returnId].slice(-RETURNS_NAMED_MAX);
    this.#rememberEnded(record);
    return reservationOf(record);
  }

  /** What the record says about the changes of the reservation. `undefined` if there is none. */
  traceOf(reservationId: string): ReservationTrace | undefined {
    this.#forget();
    const record = this.#records.get(reservationId);
    return (
      record && {
        productIds: record.lines.map(({ productId }) => productId),
        returnIds: record.returnIds,
        lacksReturns: record.returnIds.length >= RETURNS_NAMED_MAX,
      }
    );
  }

  async findKnown(reservationIds: readonly string[]): Promise<ReadonlySet<string>> {
    this.#forget();
    return new Set(reservationIds.filter((id) => this.#records.has(id)));
  }

  async get(reservationId: string): Promise<Reservation> {
    return reservationOf(this.#known(reservationId));
  }

  async list({ limit, after, expireBeforeMs }: ReservationsPage): Promise<Reservation[]> {
    return this.#activeByDeadline()
      .filter(
        (record) =>
          deadlineOf(record) < (expireBeforeMs ?? Number.POSITIVE_INFINITY) &&
          (after === undefined ||
            deadlineOf(record) > after.expireTimeMs ||
            (deadlineOf(record) === after.expireTimeMs &&
              compareIds(record.reservationId, after.reservationId) > 0)),
      )
      .slice(0, limit)
      .map(reservationOf);
  }

  async listOfProduct(productId: string, page: ReservationsPage): Promise<ProductReservations> {
    const found = (await this.list({ ...page, limit: Number.POSITIVE_INFINITY })).filter(({ lines }) =>
      lines.some((line) => line.productId === productId),
    );
    const reservations = found.slice(0, page.limit);
    const last = reservations.at(-1);
    return {
      reservations,
      next: found.length > page.limit && last ? positionOf(last) : undefined,
    };
  }

  async countActive(): Promise<number> {
    return this.#activeByDeadline().length;
  }

  async expireDue(limit: number): Promise<ExpiredReservation[]> {
    const due = this.#activeByDeadline()
      .filter((record) => this.#isDue(record))
      .slice(0, limit);
    for (const record of due) {
      this.#giveBack(record, "expired", EXPIRY_ACTOR);
      this.#end(record, "expired");
    }
    return due.map(({ reservationId, lines }) => ({ reservationId, lines }));
  }

  /** Throws `STOCK_SHORT` if the units of an expired reservation are no longer available. */
  #checkUnitsAvailable(record: ReservationRecord, sold: readonly number[], isHeld: boolean): void {
    const shortage: ShortLine[] = [];
    for (const [index, { productId, quantity }] of record.lines.entries()) {
      const units = sold[index] ?? 0;
      const product = this.#products.known(productId);
      const ledger = ledgerOf(product);
      // Before the sweep, the reservation's own hold does not count against it.
      const own = isHeld ? quantity : 0;
      const left = isDeleted(product.registers)
        ? 0
        : available({ ...ledger, reserved: ledger.reserved - own });
      if (left < units) {
        shortage.push({ productId, requested: units, available: left, version: product.version });
      }
    }
    if (shortage.length > 0) {
      throw stockShort(shortage);
    }
  }

  #giveBack(record: ReservationRecord, cause: "released" | "expired", actor: string | undefined): void {
    for (const { productId, quantity } of record.lines) {
      const product = this.#products.known(productId);
      this.#products.change(product, { cause, referenceId: record.reservationId, actor }, () => {
        product.reserved -= quantity;
      });
    }
  }

  #tombstone(reservationId: string): ReservationRecord {
    const record: ReservationRecord = {
      reservationId,
      state: "released",
      lines: [],
      fingerprint: undefined,
      createTimeMs: this.#now(),
      expireTimeMs: undefined,
      endTimeMs: undefined,
      sold: [],
      left: [],
      returnIds: [],
      revived: false,
    };
    this.#records.set(reservationId, record);
    this.#end(record, "released");
    return record;
  }

  #end(record: ReservationRecord, state: ReservationState): void {
    record.state = state;
    record.endTimeMs = this.#now();
    this.#rememberEnded(record);
  }

  #rememberEnded(record: ReservationRecord): void {
    this.#ended.delete(record.reservationId);
    this.#ended.set(record.reservationId, this.#now() + this.#retentionMs);
  }

  #forget(): void {
    for (const [reservationId, forgetAt] of this.#ended) {
      if (forgetAt > this.#now()) {
        return;
      }
      this.#ended.delete(reservationId);
      this.#records.delete(reservationId);
    }
  }

  #known(reservationId: string): ReservationRecord {
    this.#forget();
    const record = this.#records.get(reservationId);
    if (record === undefined) {
      throw reservationUnknown(reservationId);
    }
    return record;
  }

  #isDue(record: ReservationRecord): boolean {
    return record.state === "active" && deadlineOf(record) <= this.#now();
  }

  #activeByDeadline(): ReservationRecord[] {
    return [...this.#records.values()]
      .filter((record) => record.state === "active")
      .sort((a, b) => deadlineOf(a) - deadlineOf(b) || compareIds(a.reservationId, b.reservationId));
  }
}
