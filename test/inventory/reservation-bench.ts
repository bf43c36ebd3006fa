import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { InventoryError, type InventoryErrorCode, type ShortLine } from "../../server/inventory/errors.ts";
import type { Ledger, StockChange } from "../../server/inventory/ledger.ts";
import type { Line, Reservation } from "../../server/inventory/reservation.ts";
import type { InventoryStore, ReservationStore } from "../../server/inventory/store.ts";
import { until } from "../support/until.ts";
import type { MakeStore } from "./store-contract.ts";

export const QUANTITY_MAX = 2_147_483_647;
export const HOUR_MS = 3_600_000;
export const DAY_MS = 24 * HOUR_MS;
/** Short enough to be waited for. Callers over the wire get a second at least; a store takes any. */
export const SOON_MS = 3;
export const U = 1_700_000_000_123_456;
/** A store may be shared by many runs, so every ID has the run in it. */
export const RUN = randomUUID().slice(0, 8);

let counters = 0;

/** A product of one test, with what its ledger has to be. */
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

  /** Checks what is named of the ledger. */
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

  /** What was recorded since the product was declared: cause, delta, and the operation behind it. */
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

/** The things that one test works with, and short words for what is done to them. */
export class Bench {
  readonly store: InventoryStore;
  readonly calls: ReservationStore;
  readonly #shelves: Shelf[] = [];
  readonly #reservationIds: string[] = [];

  constructor(store: InventoryStore) {
    this.store = store;
    this.calls = store.reservations;
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

  /** Reserves, and waits until the deadline has passed. Nobody has swept it up yet. */
  async reserveLapsed(reservationId: string, lines: readonly Line[]): Promise<Reservation> {
    const reservation = await this.reserve(reservationId, lines, SOON_MS);
    await hasLapsed(reservation);
    return reservation;
  }

  /** Reserves, and lets it expire. */
  async reserveExpired(reservationId: string, lines: readonly Line[]): Promise<Reservation> {
    await this.reserveLapsed(reservationId, lines);
    await this.sweep();
    return await this.expectState(reservationId, { state: "expired" });
  }

  async sweep(): Promise<void> {
    for (let n = 0; (await this.calls.expireDue(1_000)) > 0; n++) {
      assert.ok(n < 10, "the sweeper finds no end");
    }
  }

  commit(reservationId: string, lines?: readonly Line[], strict = false): Promise<Reservation> {
    return this.calls.commit({ reservationId, lines, strict });
  }

  return(reservationId: string, returnId: string, lines: readonly Line[]): Promise<Reservation> {
    return this.calls.return({ reservationId, returnId, lines });
  }

  async expectState(reservationId: string, told: Partial<Reservation>): Promise<Reservation> {
    const reservation = await this.calls.get(reservationId);
    expectTold(reservation, told);
    return reservation;
  }

  /** Runs what no reader may notice: ledgers, change records and reservations stay. */
  async unchangedBy<T>(action: () => Promise<T>): Promise<T> {
    const reservationIds = [...this.#reservationIds];
    const seen = async () => ({
      ledgers: await Promise.all(this.#shelves.map((shelf) => shelf.ledger())),
      changes: await Promise.all(this.#shelves.map((shelf) => shelf.changes())),
      reservations: await Promise.all(
        reservationIds.map((id) => this.calls.get(id).catch((error: Error) => error.message)),
      ),
    });
    const earlier = await seen();
    const result = await action();
    assert.deepEqual(await seen(), earlier);
    return result;
  }

  /** A refusal, which besides its code has to leave everything as it was. */
  refused(code: InventoryErrorCode, action: () => Promise<unknown>): Promise<InventoryError> {
    return this.unchangedBy(async () => {
      const error: unknown = await action().then(
        (answer) => `an answer: ${JSON.stringify(answer)}`,
        (reason: unknown) => reason,
      );
      assert.ok(error instanceof InventoryError, `met ${error}`);
      assert.equal(error.code, code, error.message);
      assert.notEqual(error.message, "");
      return error;
    });
  }

  /** A repetition, which has to answer with the reservation as it is, and do nothing. */
  async repeated(reservationId: string, action: () => Promise<Reservation>): Promise<void> {
    const expected = await this.calls.get(reservationId);
    assert.deepEqual(await this.unchangedBy(action), expected);
  }
}

export function newId(word: string): string {
  return `${word}${++counters}-${RUN}`;
}

/** Checks what is named of the reservation, and that it has an end if it has ended. */
export function expectTold(reservation: Reservation, told: Partial<Reservation>): void {
  assert.deepEqual({ ...reservation, ...told }, reservation);
  assert.equal(reservation.endTimeMs === undefined, reservation.state === "active", "has an end");
  assert.ok((reservation.endTimeMs ?? reservation.createTimeMs) >= reservation.createTimeMs);
}

export function short(shelf: Shelf, requested: number, available: number): ShortLine {
  return { productId: shelf.productId, requested, available };
}

/** Waits by the clock of this machine, which is the store's too. */
export async function hasLapsed({ expireTimeMs = 0 }: Reservation): Promise<void> {
  await until(() => Date.now() > expireTimeMs, "the deadline has passed");
}

/** Runs on a store of its own, where nobody else's reservations are listed or due. */
export async function onOwnStore(
  makeStore: MakeStore,
  body: (bench: Bench, setClock: ((nowMs: number) => void) | undefined) => Promise<unknown>,
): Promise<void> {
  const { store, setClock, close } = await makeStore();
  try {
    await body(new Bench(store), setClock);
  } finally {
    await close();
  }
}
