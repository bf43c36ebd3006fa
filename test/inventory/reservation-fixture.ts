import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { InventoryError, type InventoryErrorCode, type ShortLine } from "../../server/inventory/errors.ts";
import type { Ledger, StockChange } from "../../server/inventory/ledger.ts";
import type { Line, Reservation } from "../../server/inventory/reservation.ts";
import type { InventoryStore, ReservationStore } from "../../server/inventory/store.ts";
import { until } from "../support/until.ts";
import type { MakeStore, StoreUnderTest } from "./store-contract.ts";

export const QUANTITY_MAX = 2_147_483_647;
export const HOUR_MS = 3_600_000;
export const DAY_MS = 24 * HOUR_MS;
/** Short enough for a test to wait for. The API requires at least a second; a store accepts any. */
export const SOON_MS = 3;
export const U = 1_700_000_000_123_456;
/** Test runs may share a store, so every ID contains the run. */
export const RUN = randomUUID().slice(0, 8);

let counters = 0;

/** A product of one test, with assertions on its ledger. */
export class Shelf {
  readonly store: InventoryStore;
  readonly productId: string;

  constructor(store: InventoryStore, productId: string) {
    this.store = store;
    this.productId = productId;
  }

  units(quantity: number): Line {
    return { productId: this.productId, quantity };
  }

  ledger(): Promise<Ledger> {
    return this.store.getLedger(this.productId);
  }

  /** Checks the given fields of the ledger. */
  async expect(expected: Partial<Ledger> & { readonly available?: number }): Promise<void> {
    const { available, ...numbers } = expected;
    const ledger = await this.ledger();
    assert.deepEqual({ ...ledger, ...numbers }, ledger);
    if (available !== undefined) {
      assert.equal((await this.store.getStock(this.productId)).available, available);
    }
  }

  count(count: number): Promise<Ledger> {
    const countId = newId("count");
    return this.store.countStock({
      productId: this.productId,
      count,
      expectedVersion: undefined,
      countId,
      reason: "",
    });
  }

  put(declared: number, updateTimeMicros: number): Promise<unknown> {
    const { productId } = this;
    return this.store.putProduct({ productId, details: undefined, declared, updateTimeMicros });
  }

  delete(updateTimeMicros = U + 1): Promise<unknown> {
    return this.store.deleteProduct({ productId: this.productId, updateTimeMicros });
  }

  /** Oldest first. */
  async changes(): Promise<StockChange[]> {
    const page = { limit: 100, beforeVersion: undefined };
    return (await this.store.listChanges(this.productId, page)).reverse();
  }

  /** The changes since the product was declared: cause, delta, and reference ID. */
  async recorded(): Promise<[string, number, string][]> {
    const changes = await this.changes();
    assert.deepEqual(
      changes.map((change) => change.ledger.version),
      changes.map((_, index) => index + 1),
      "versions have a gap",
    );
    assert.deepEqual(changes.at(-1)?.ledger, await this.ledger());
    return changes.slice(1).map(({ cause, delta, referenceId }) => [cause, delta, referenceId]);
  }
}

/** The store and products of one test, with shorthand methods. */
export class ReservationFixture {
  readonly store: InventoryStore;
  readonly calls: ReservationStore;
  readonly #recordsRefusedHolds: boolean;
  readonly #shelves: Shelf[] = [];
  readonly #reservationIds: string[] = [];

  constructor(
    store: InventoryStore,
    { recordsRefusedHolds = false }: Pick<StoreUnderTest, "recordsRefusedHolds"> = {},
  ) {
    this.store = store;
    this.calls = store.reservations;
    this.#recordsRefusedHolds = recordsRefusedHolds;
  }

  async shelf(declared: number, productId = newId("p")): Promise<Shelf> {
    const shelf = new Shelf(this.store, productId);
    await shelf.put(declared, U);
    this.#shelves.push(shelf);
    return shelf;
  }

  reserve(reservationId: string, lines: readonly Line[], ttlMs = HOUR_MS): Promise<Reservation> {
    this.#reservationIds.push(reservationId);
    return this.calls.reserve({ reservationId, lines, ttlMs });
  }

  /** Reserves, and waits until the deadline has passed. The reservation is not yet swept. */
  async reserveLapsed(reservationId: string, lines: readonly Line[]): Promise<Reservation> {
    const reservation = await this.reserve(reservationId, lines, SOON_MS);
    await hasLapsed(reservation);
    return reservation;
  }

  /** Reserves, waits for the deadline, and expires the reservation. */
  async reserveExpired(reservationId: string, lines: readonly Line[]): Promise<Reservation> {
    await this.reserveLapsed(reservationId, lines);
    await this.sweep();
    return await this.expectState(reservationId, { state: "expired" });
  }

  /** Resolves with the number of reservations expired. */
  async expireDue(limit: number): Promise<number> {
    return (await this.calls.expireDue(limit)).length;
  }

  async sweep(): Promise<void> {
    for (let n = 0; (await this.expireDue(1_000)) > 0; n++) {
      assert.ok(n < 10, "the sweeper finds no end");
    }
  }

  commit(reservationId: string, lines?: readonly Line[], strict = false): Promise<Reservation> {
    return this.calls.commit({ reservationId, lines, strict });
  }

  return(reservationId: string, returnId: string, lines: readonly Line[]): Promise<Reservation> {
    return this.calls.return({ reservationId, returnId, lines });
  }

  async expectState(reservationId: string, expected: Partial<Reservation>): Promise<Reservation> {
    const reservation = await this.calls.get(reservationId);
    expectReservation(reservation, expected);
    return reservation;
  }

  /** Runs an action that must have no visible effect on ledgers, change records and reservations. */
  async unchangedBy<T>(action: () => Promise<T>): Promise<T> {
    const reservationIds = [...this.#reservationIds];
    const seen = async () => ({
      ledgers: await Promise.all(this.#shelves.map(async (shelf) => this.#visible(await shelf.ledger()))),
      changes: await Promise.all(
        this.#shelves.map(async (shelf) => this.#visibleChanges(await shelf.changes())),
      ),
      reservations: await Promise.all(
        reservationIds.map((id) => this.calls.get(id).catch((error: Error) => error.message)),
      ),
    });
    const earlier = await seen();
    const result = await action();
    assert.deepEqual(await seen(), earlier);
    return result;
  }

  /** A ledger, without the version if refused holds may have raised it. */
  #visible(ledger: Ledger): Partial<Ledger> {
    const { version: _, ...others } = ledger;
    return this.#recordsRefusedHolds ? others : ledger;
  }

  /** The changes, without those that a refused hold may have left. */
  #visibleChanges(changes: readonly StockChange[]): readonly unknown[] {
    if (!this.#recordsRefusedHolds) return changes;
    return withoutRefusedHolds(changes).map(({ cause, delta, referenceId, ledger }) => ({
      ...{ cause, delta, referenceId },
      ledger: this.#visible(ledger),
    }));
  }

  /** Expects an error with this code and no visible effect. */
  refused(code: InventoryErrorCode, action: () => Promise<unknown>): Promise<InventoryError> {
    return this.unchangedBy(async () => {
      const error: unknown = await action().then(
        (result) => `no error: ${JSON.stringify(result)}`,
        (reason: unknown) => reason,
      );
      assert.ok(error instanceof InventoryError, `met ${error}`);
      assert.equal(error.code, code, error.message);
      assert.notEqual(error.message, "");
      return error;
    });
  }

  /** Expects a repetition to resolve with the current reservation and have no visible effect. */
  async repeated(reservationId: string, action: () => Promise<Reservation>): Promise<void> {
    const expected = await this.calls.get(reservationId);
    assert.deepEqual(await this.unchangedBy(action), expected);
  }
}

/** Changes, oldest first, without each hold that is followed directly by its release. */
export function withoutRefusedHolds(changes: readonly StockChange[]): StockChange[] {
  const kept: StockChange[] = [];
  for (const change of changes) {
    const last = kept.at(-1);
    const isRefused =
      last?.cause === "reserved" && change.cause === "released" && last.referenceId === change.referenceId;
    if (isRefused) kept.pop();
    else kept.push(change);
  }
  return kept;
}

export function newId(word: string): string {
  return `${word}${++counters}-${RUN}`;
}

/** Checks the given fields of the reservation, and that an ended one has an end time. */
export function expectReservation(reservation: Reservation, expected: Partial<Reservation>): void {
  assert.deepEqual({ ...reservation, ...expected }, reservation);
  assert.equal(reservation.endTimeMs === undefined, reservation.state === "active", "has an end");
  assert.ok((reservation.endTimeMs ?? reservation.createTimeMs) >= reservation.createTimeMs);
}

/** A short line of a product that is at `version`; 1 is that of a new shelf. */
export function short(shelf: Shelf, requested: number, available: number, version = 1): ShortLine {
  return { productId: shelf.productId, requested, available, version };
}

/** Waits by the clock of this machine, which is also the store's. */
export async function hasLapsed({ expireTimeMs = 0 }: Reservation): Promise<void> {
  await until(() => Date.now() > expireTimeMs, "the deadline has passed");
}

/** Runs on a separate store, without reservations of other tests. */
export async function onOwnStore(
  makeStore: MakeStore,
  body: (fixture: ReservationFixture, setClock: ((nowMs: number) => void) | undefined) => Promise<unknown>,
): Promise<void> {
  const { setClock, close, ...opened } = await makeStore();
  try {
    await body(new ReservationFixture(opened.store, opened), setClock);
  } finally {
    await close();
  }
}
