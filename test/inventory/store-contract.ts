import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, it, type TestContext } from "node:test";
import { InventoryError, type InventoryErrorCode } from "../../server/inventory/errors.ts";
import type { Ledger, ProductDetails, StockChange } from "../../server/inventory/ledger.ts";
import type { PutResult } from "../../server/inventory/product-event.ts";
import type { InventoryStore, StockAdjustment, StockCount } from "../../server/inventory/store.ts";

/** A store that the suite opens and closes. */
export interface StoreUnderTest {
  readonly store: InventoryStore;
  /** Sets the store's clock, ms since 1970. Absent if the test cannot control the clock. */
  readonly setClock?: ((nowMs: number) => void) | undefined;
  /**
   * Whether a refused reservation with products in several buckets may leave in the history that units were reserved and
   * released again. A Cluster does.
   */
  readonly recordsRefusedHolds?: boolean;
  close(): Promise<void>;
}

/** Settings of a store that a test needs to differ from the default. */
export interface StoreSettings {
  readonly changesKept?: number;
  readonly operationRetentionMs?: number;
}

export type MakeStore = (settings?: StoreSettings) => Promise<StoreUnderTest>;

const QUANTITY_MAX = 2_147_483_647;
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
/** A seller's time long past, in 16 digits of µs: a store that formats it with 14 digits loses the last ones. */
const U = 1_700_000_000_123_456;
/** Test runs may share a store, so every ID contains the run. */
const RUN = randomUUID().slice(0, 8);

const LAMP: ProductDetails = { name: "Lamp", description: "Warm", price: 19.99, collectionId: "light" };
const TORCH: ProductDetails = { name: "Torch", description: "Cold", price: 5, collectionId: "" };

let productsMade = 0;

/** The product of one test, with shorthand methods. */
class Shelf {
  readonly productId: string;
  readonly store: InventoryStore;

  constructor(store: InventoryStore, productId = `p${++productsMade}-${RUN}`) {
    this.store = store;
    this.productId = productId;
  }

  /** An operation ID that no other test uses. */
  id(word: string): string {
    return `${word}-${this.productId}`;
  }

  put(updateTimeMicros: number | undefined, declared?: number, details?: ProductDetails): Promise<PutResult> {
    return this.store.putProduct({ productId: this.productId, details, declared, updateTimeMicros });
  }

  delete(updateTimeMicros: number | undefined): Promise<PutResult> {
    return this.store.deleteProduct({ productId: this.productId, updateTimeMicros });
  }

  count(count: number, word: string, more: Partial<StockCount> = {}): Promise<Ledger> {
    const { productId, store } = this;
    return store.countStock({
      productId,
      count,
      expectedVersion: undefined,
      countId: this.id(word),
      reason: "",
      ...more,
    });
  }

  adjust(delta: number, word: string, more: Partial<StockAdjustment> = {}): Promise<Ledger> {
    const { productId, store } = this;
    return store.adjustStock({ productId, delta, adjustmentId: this.id(word), reason: "", ...more });
  }

  setSafety(safety: number): Promise<Ledger> {
    return this.store.setSafetyStock(this.productId, safety);
  }

  changes(limit = 100, beforeVersion?: number): Promise<StockChange[]> {
    return this.store.listChanges(this.productId, { limit, beforeVersion });
  }

  async newestChange(): Promise<StockChange> {
    const [newest] = await this.changes(1);
    assert.ok(newest, "no change is recorded");
    return newest;
  }

  /** Checks the whole ledger. Fields that are not given have the values of an empty product. */
  async expectLedger(expected: Partial<Ledger>): Promise<void> {
    assert.deepEqual(await this.store.getLedger(this.productId), this.ledger(expected));
  }

  ledger(expected: Partial<Ledger>): Ledger {
    return {
      productId: this.productId,
      declared: 0,
      declareTimeMicros: undefined,
      adjusted: 0,
      sold: 0,
      reserved: 0,
      safety: 0,
      version: 0,
      deleted: false,
      ...expected,
    };
  }

  async expectAvailable(expected: number): Promise<void> {
    assert.equal((await this.store.getStock(this.productId)).available, expected);
  }

  /** Runs an action that must have no visible effect on ledger, stock, version, time and change records. */
  async unchangedBy<T>(action: () => Promise<T>): Promise<T> {
    const seen = async () => ({
      ledger: await this.store.getLedger(this.productId),
      stock: await this.store.batchGetStock([this.productId]),
      changes: await this.changes(),
    });
    const earlier = await seen();
    const result = await action();
    assert.deepEqual(await seen(), earlier);
    return result;
  }

  /** Expects an error with this code and no visible effect. */
  refused(code: InventoryErrorCode, action: () => Promise<unknown>): Promise<InventoryError> {
    return this.unchangedBy(() => refused(code, action()));
  }
}

async function refused(code: InventoryErrorCode, call: Promise<unknown>): Promise<InventoryError> {
  const error: unknown = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof InventoryError, `answered, or failed with another error: ${error}`);
  assert.equal(error.code, code);
  assert.notEqual(error.message, "");
  return error;
}

/** The store contract, as one test suite for every store. */
/** Two products in one bucket, and, if the store has several buckets, two in different ones. */
function shelfPairs(store: InventoryStore): [Shelf, Shelf][] {
  const shelf = new Shelf(store);
  const others = Array.from({ length: 100 }, () => new Shelf(store));
  const isTogether = ({ productId }: Shelf) => store.bucketOf(productId) === store.bucketOf(shelf.productId);
  const [second, third] = others.filter(isTogether);
  const apart = others.find((other) => !isTogether(other));
  assert.ok(second !== undefined && third !== undefined);
  return apart === undefined
    ? [[shelf, second]]
    : [
        [shelf, second],
        [third, apart],
      ];
}

export function describeStoreContract(
  name: string,
  makeStore: MakeStore,
  options: { readonly skip?: string | undefined } = {},
): void {
  describe(`${name} implements the store contract`, { skip: options.skip ?? false }, () => {
    let opened: StoreUnderTest;
    before(async () => {
      opened = await makeStore();
    });
    after(() => opened?.close());
    const newShelf = () => new Shelf(opened.store);

    describe("ledger", () => ledgerRules(newShelf));
    describe("reads", () => readRules(newShelf));
    describe("product events", () => productEventRules(newShelf));
    describe("deletion", () => deletionRules(newShelf));
    describe("counts", () => countRules(newShelf));
    describe("adjustments", () => adjustmentRules(newShelf));
    describe("safety stock", () => safetyRules(newShelf));
    describe("change records", () => changeRules(newShelf));
    describe("text and IDs", () => textRules(newShelf));
    describe("clock", () => clockRules(newShelf, makeStore));
  });
}

function ledgerRules(newShelf: () => Shelf): void {
  it("starts a product at version 1 with the declared units", async () => {
    const shelf = newShelf();
    const expected = shelf.ledger({ declared: 10, declareTimeMicros: U, version: 1 });
    assert.deepEqual(await shelf.put(U, 10, LAMP), { applied: true, changed: true, ledger: expected });
    await shelf.expectLedger(expected);
    const { updateTimeMs, ...stock } = await shelf.store.getStock(shelf.productId);
    assert.deepEqual(stock, { productId: shelf.productId, available: 10, version: 1, details: LAMP });
    assert.equal(updateTimeMs, (await shelf.newestChange()).changeTimeMs);
  });

  it("derives available from declared, adjusted and safety, never below 0", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.adjust(-4, "damaged");
    await shelf.setSafety(5);
    await shelf.expectAvailable(1);
    await shelf.setSafety(7);
    await shelf.expectAvailable(0);
    await shelf.expectLedger({ declared: 10, declareTimeMicros: U, adjusted: -4, safety: 7, version: 4 });
  });

  it("keeps the corrections when a seller's edit repeats the number, and applies a changed one as a difference", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10, LAMP);
    await shelf.adjust(-4, "damaged");
    await shelf.put(U + 1, 10, TORCH);
    await shelf.expectAvailable(6);
    await shelf.put(U + 2, 13, TORCH);
    await shelf.expectAvailable(9);
    await shelf.expectLedger({ declared: 13, declareTimeMicros: U + 2, adjusted: -4, version: 4 });
  });

  it("keeps a negative on hand in the ledger, so that later supply first makes up for it", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.adjust(-8, "damaged");
    await shelf.put(U + 1, 3);
    await shelf.expectLedger({ declared: 3, declareTimeMicros: U + 1, adjusted: -8, version: 3 });
    await shelf.expectAvailable(0);
    await shelf.adjust(2, "found-2");
    await shelf.expectAvailable(0);
    await shelf.adjust(7, "found-7");
    await shelf.expectAvailable(4);
  });

  it("increments the version by one with each visible change, and never decreases it", async () => {
    const shelf = newShelf();
    const ledgers = [
      (await shelf.put(U, 10, LAMP)).ledger,
      await shelf.count(8, "count"),
      await shelf.adjust(1, "found"),
      await shelf.setSafety(2),
      (await shelf.put(U + 1, undefined, TORCH)).ledger,
      (await shelf.put(U + 2, 10, TORCH)).ledger, // the same content, declared later
      (await shelf.delete(U + 3)).ledger,
      (await shelf.put(U + 4, 10, TORCH)).ledger,
    ];
    assert.deepEqual(
      ledgers.map((ledger) => ledger.version),
      [1, 2, 3, 4, 5, 6, 7, 8],
    );
    assert.equal((await shelf.store.getStock(shelf.productId)).version, 8);
  });

  it("holds the largest quantities exactly", async () => {
    const shelf = newShelf();
    await shelf.put(U, QUANTITY_MAX);
    await shelf.expectAvailable(QUANTITY_MAX);
    await shelf.setSafety(QUANTITY_MAX);
    await shelf.expectAvailable(0);
    await shelf.count(0, "empty");
    await shelf.put(U + 1, 0);
    const low = { declareTimeMicros: U + 1, safety: QUANTITY_MAX, version: 4 };
    await shelf.expectLedger({ ...low, adjusted: -QUANTITY_MAX });
    await shelf.count(QUANTITY_MAX, "full");
    await shelf.expectLedger({ ...low, adjusted: QUANTITY_MAX, version: 5 });
  });
}

function readRules(newShelf: () => Shelf): void {
  it("rejects every call on an unknown product with PRODUCT_UNKNOWN, and does not create it", async () => {
    const shelf = newShelf();
    const { store, productId } = shelf;
    await refused("PRODUCT_UNKNOWN", shelf.count(5, "count"));
    await refused("PRODUCT_UNKNOWN", shelf.adjust(5, "found"));
    await refused("PRODUCT_UNKNOWN", shelf.setSafety(5));
    await refused("PRODUCT_UNKNOWN", shelf.setSafety(0));
    await refused("PRODUCT_UNKNOWN", store.getStock(productId));
    await refused("PRODUCT_UNKNOWN", shelf.changes());
    const error = await refused("PRODUCT_UNKNOWN", store.getLedger(productId));
    assert.ok(error.message.includes(productId), error.message);
    await shelf.put(U, 1);
    await shelf.adjust(5, "found"); // the refused operation took neither the ID nor effect
    await shelf.expectLedger({ declared: 1, declareTimeMicros: U, adjusted: 5, version: 2 });
  });

  it("hides a deleted product from shoppers and writers, and still returns its ledger and changes", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10, LAMP);
    await shelf.adjust(-1, "damaged");
    await shelf.delete(U + 1);
    await shelf.refused("PRODUCT_UNKNOWN", () => shelf.store.getStock(shelf.productId));
    await shelf.refused("PRODUCT_UNKNOWN", () => shelf.count(5, "count"));
    await shelf.refused("PRODUCT_UNKNOWN", () => shelf.adjust(5, "found"));
    await shelf.refused("PRODUCT_UNKNOWN", () => shelf.setSafety(5));
    await shelf.expectLedger({
      declared: 10,
      declareTimeMicros: U,
      adjusted: -1,
      version: 3,
      deleted: true,
    });
    assert.deepEqual(
      (await shelf.changes()).map((change) => change.cause),
      ["deleted", "adjusted", "declared"],
    );
  });

  it("reads many products in request order, with gaps for unknown and deleted ones", async () => {
    const [one, two, gone, never] = [newShelf(), newShelf(), newShelf(), newShelf()];
    await one.put(U, 1, LAMP);
    await two.put(U, 2);
    await gone.put(U, 3);
    await gone.delete(U + 1);
    const productIds = [two, never, one, gone, two].map((shelf) => shelf.productId);
    const stocks = await one.store.batchGetStock(productIds);
    const [first, second] = [
      await one.store.getStock(one.productId),
      await two.store.getStock(two.productId),
    ];
    assert.deepEqual(stocks, [second, undefined, first, undefined, second]);
    assert.deepEqual([first.details, second.details], [LAMP, undefined]);
    assert.deepEqual(await one.store.batchGetStock([]), []);
  });

  it("is ready", async () => {
    assert.equal(await newShelf().store.unreadyReason(), undefined);
  });
}

function productEventRules(newShelf: () => Shelf): void {
  it("ignores an event one microsecond older than the stored one, and applies one a microsecond newer", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10, LAMP);
    const older = await shelf.unchangedBy(() => shelf.put(U - 1, 99, TORCH));
    const expected = { declared: 10, declareTimeMicros: U, version: 1 };
    assert.deepEqual(older, { applied: false, changed: false, ledger: shelf.ledger(expected) });
    assert.equal((await shelf.put(U + 1, 12, TORCH)).applied, true);
    await shelf.expectLedger({ declared: 12, declareTimeMicros: U + 1, version: 2 });
    assert.deepEqual((await shelf.store.getStock(shelf.productId)).details, TORCH);
  });

  it("changes nothing when an event is repeated", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10, LAMP);
    assert.equal((await shelf.unchangedBy(() => shelf.put(U, 10, LAMP))).applied, true);
  });

  it("records a newer event with the same content as a change, because the declaration is newer", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10, LAMP);
    assert.equal((await shelf.put(U + 1, 10, LAMP)).applied, true);
    await shelf.expectLedger({ declared: 10, declareTimeMicros: U + 1, version: 2 });
    const { cause, delta, details } = await shelf.newestChange();
    assert.deepEqual({ cause, delta, details }, { cause: "declared", delta: 0, details: undefined });
  });

  it("lets the smaller number win between two events of one microsecond, while details stay", async () => {
    const shelf = newShelf();
    await shelf.put(U, 9, LAMP);
    assert.equal((await shelf.unchangedBy(() => shelf.put(U, 12, TORCH))).applied, true);
    assert.equal((await shelf.put(U, 7, TORCH)).applied, true);
    await shelf.expectLedger({ declared: 7, declareTimeMicros: U, version: 2 });
    assert.deepEqual((await shelf.store.getStock(shelf.productId)).details, LAMP);
    const { cause, delta, details } = await shelf.newestChange();
    assert.deepEqual({ cause, delta, details }, { cause: "declared", delta: -2, details: undefined });
  });

  it("lets a declared 0 win a tie, and applies a newer 0", async () => {
    const [tied, newer] = [newShelf(), newShelf()];
    await tied.put(U, 9);
    await tied.put(U, 0);
    await tied.expectLedger({ declareTimeMicros: U, version: 2 });
    await newer.put(U, 9);
    await newer.put(U + 1, 0);
    await newer.expectLedger({ declareTimeMicros: U + 1, version: 2 });
  });

  it("changes only the details if the event has no stock number", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10, LAMP);
    assert.equal((await shelf.put(U + 5, undefined, TORCH)).applied, true);
    await shelf.expectLedger({ declared: 10, declareTimeMicros: U, version: 2 });
    const { cause, delta, details } = await shelf.newestChange();
    assert.deepEqual({ cause, delta, details }, { cause: "details", delta: 0, details: TORCH });
    await shelf.unchangedBy(() => shelf.put(U + 6, undefined, TORCH));
    // An edit of the details does not exclude an older event with a stock number.
    assert.equal((await shelf.put(U + 3, 8, LAMP)).applied, true);
    await shelf.expectLedger({ declared: 8, declareTimeMicros: U + 3, version: 3 });
    assert.deepEqual((await shelf.store.getStock(shelf.productId)).details, TORCH);
  });

  it("changes only the number if the event has no details", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10, LAMP);
    await shelf.put(U + 5, 11);
    await shelf.expectLedger({ declared: 11, declareTimeMicros: U + 5, version: 2 });
    assert.deepEqual((await shelf.store.getStock(shelf.productId)).details, LAMP);
    await shelf.put(U + 3, 99, TORCH);
    await shelf.expectLedger({ declared: 11, declareTimeMicros: U + 5, version: 3 });
    assert.deepEqual((await shelf.store.getStock(shelf.productId)).details, TORCH);
  });

  it("creates a product with 0 units from an event without a stock number", async () => {
    const shelf = newShelf();
    assert.equal((await shelf.put(U, undefined, LAMP)).applied, true);
    await shelf.expectLedger({ version: 1 });
    await shelf.expectAvailable(0);
    assert.deepEqual((await shelf.newestChange()).details, LAMP);
  });

  it("creates a product from an event with neither number nor details", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10, LAMP);
    assert.equal((await shelf.unchangedBy(() => shelf.put(U + 5))).applied, true);
    assert.equal((await shelf.unchangedBy(() => shelf.put(U + 4))).applied, false);
    assert.equal((await shelf.unchangedBy(() => shelf.delete(U + 3))).applied, false);
  });

  it("lets the seller's first event supersede a declaration with U = 0", async () => {
    const shelf = newShelf();
    assert.equal((await shelf.put(0, 5)).applied, true);
    await shelf.expectLedger({ declared: 5, declareTimeMicros: 0, version: 1 });
    await shelf.put(1, 9);
    await shelf.expectLedger({ declared: 9, declareTimeMicros: 1, version: 2 });
  });

  it("ends in the same ledger in every order of arrival", async () => {
    const events: ((shelf: Shelf) => Promise<PutResult>)[] = [
      (shelf) => shelf.put(U + 1, 8, LAMP),
      (shelf) => shelf.put(U + 2, undefined, TORCH),
      (shelf) => shelf.delete(U + 3),
      (shelf) => shelf.put(U + 4),
    ];
    for (const order of permutations(events)) {
      const shelf = newShelf();
      for (const event of [...order, ...order]) {
        await event(shelf);
      }
      const { version, ...ledger } = await shelf.store.getLedger(shelf.productId);
      assert.deepEqual({ ...ledger, version: 0 }, shelf.ledger({ declared: 8, declareTimeMicros: U + 1 }));
      const stock = await shelf.store.getStock(shelf.productId);
      assert.deepEqual([stock.version, stock.available, stock.details], [version, 8, TORCH]);
    }
  });
}

function deletionRules(newShelf: () => Shelf): void {
  it("records a deletion once, and keeps the numbers in the ledger", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10, LAMP);
    const expected = shelf.ledger({ declared: 10, declareTimeMicros: U, version: 2, deleted: true });
    assert.deepEqual(await shelf.delete(U + 1), { applied: true, changed: true, ledger: expected });
    const { changeTimeMs, ...change } = await shelf.newestChange();
    assert.ok(changeTimeMs > 0);
    const rest = { delta: 0, referenceId: "", reason: "", actor: "", details: undefined };
    assert.deepEqual(change, { cause: "deleted", ledger: expected, ...rest });
    assert.equal((await shelf.unchangedBy(() => shelf.delete(U + 1))).applied, true);
    assert.equal((await shelf.unchangedBy(() => shelf.delete(U + 9))).applied, true);
    assert.equal((await shelf.unchangedBy(() => shelf.delete(U + 5))).applied, false);
    // The later deletion moved the fence to its own time.
    assert.equal((await shelf.put(U + 8, 10, LAMP)).applied, false);
    await refused("PRODUCT_UNKNOWN", shelf.store.getStock(shelf.productId));
  });

  it("does not restore a product by a delayed older update", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10, LAMP);
    await shelf.delete(U + 5);
    const late = await shelf.put(U + 4, 12, LAMP);
    assert.deepEqual([late.applied, late.ledger.deleted], [false, true]);
    await refused("PRODUCT_UNKNOWN", shelf.store.getStock(shelf.productId));
    assert.deepEqual(await shelf.store.batchGetStock([shelf.productId]), [undefined]);
  });

  it("keeps a tombstone of a product that was never created", async () => {
    const shelf = newShelf();
    const deleted = await shelf.delete(U);
    assert.deepEqual(deleted, {
      applied: true,
      changed: true,
      ledger: shelf.ledger({ version: 1, deleted: true }),
    });
    assert.deepEqual([(await shelf.newestChange()).cause, (await shelf.changes()).length], ["deleted", 1]);
    assert.equal((await shelf.put(U - 1, 4, LAMP)).applied, false);
    await refused("PRODUCT_UNKNOWN", shelf.store.getStock(shelf.productId));
  });

  it("ignores a deletion older than the newest update", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10, LAMP);
    assert.equal((await shelf.unchangedBy(() => shelf.delete(U - 1))).applied, false);
  });

  it("lets a deletion win over an update of the same microsecond, in either order", async () => {
    const [before, behind] = [newShelf(), newShelf()];
    await before.put(U, 10);
    assert.equal((await before.delete(U)).applied, true);
    await behind.delete(U);
    assert.equal((await behind.put(U, 10)).applied, false);
    const expected = { declared: 10, declareTimeMicros: U, version: 2, deleted: true };
    await before.expectLedger(expected);
    await behind.expectLedger(expected);
  });

  it("restores a deleted product by a newer update, with its ledger and its version", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10, LAMP);
    await shelf.adjust(-3, "damaged");
    await shelf.setSafety(1);
    await shelf.delete(U + 1);
    assert.equal((await shelf.put(U + 2, 12)).applied, true);
    const kept = { adjusted: -3, safety: 1, version: 5 };
    await shelf.expectLedger({ declared: 12, declareTimeMicros: U + 2, ...kept });
    await shelf.expectAvailable(8);
    const { cause, delta, details } = await shelf.newestChange();
    assert.deepEqual({ cause, delta, details }, { cause: "declared", delta: 2, details: LAMP });
  });

  it("restores a product by details alone, with the number that was last declared", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10, LAMP);
    await shelf.delete(U + 1);
    assert.equal((await shelf.put(U + 2, undefined, TORCH)).applied, true);
    await shelf.expectLedger({ declared: 10, declareTimeMicros: U, version: 3 });
    const { delta, details } = await shelf.newestChange();
    assert.deepEqual({ delta, details }, { delta: 0, details: TORCH });
  });
}

function countRules(newShelf: () => Shelf): void {
  it("sets on hand to the count, and records the correction", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.setSafety(2);
    const known = { declared: 10, declareTimeMicros: U, safety: 2 };
    const up = shelf.ledger({ ...known, adjusted: 5, version: 3 });
    assert.deepEqual(await shelf.count(15, "up", { reason: "shelf 4" }), up);
    const { changeTimeMs, ...change } = await shelf.newestChange();
    assert.equal(changeTimeMs, (await shelf.store.getStock(shelf.productId)).updateTimeMs);
    const rest = { referenceId: shelf.id("up"), reason: "shelf 4", actor: "", details: undefined };
    assert.deepEqual(change, { cause: "counted", delta: 5, ledger: up, ...rest });
    assert.deepEqual(await shelf.count(0, "down"), shelf.ledger({ ...known, adjusted: -10, version: 4 }));
    assert.equal((await shelf.newestChange()).delta, -13); // 2 of the 15 were kept back
    await shelf.put(U + 1, 3); // on hand falls to -7
    assert.equal((await shelf.count(QUANTITY_MAX, "full")).adjusted, QUANTITY_MAX - 3);
    await shelf.expectAvailable(QUANTITY_MAX - 2);
  });

  it("changes nothing when the count equals on hand, and still records its ID", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.unchangedBy(() => shelf.count(10, "same"));
    await shelf.adjust(-4, "damaged");
    await shelf.unchangedBy(() => shelf.count(10, "same"));
    await shelf.refused("ID_REUSED", () => shelf.count(9, "same"));
  });

  it("counts only at the expected version, and a rejected count does not use up its ID", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    for (const expectedVersion of [0n, 2n]) {
      await shelf.refused("VERSION_MISMATCH", () => shelf.count(7, "count", { expectedVersion }));
    }
    await shelf.refused("VERSION_MISMATCH", () => shelf.count(10, "no-op", { expectedVersion: 2n }));
    const largest = 2n ** 64n - 1n;
    const { message } = await shelf.refused("VERSION_MISMATCH", () =>
      shelf.count(10, "largest", { expectedVersion: largest }),
    );
    assert.ok(message.includes(String(largest)), message);
    assert.equal((await shelf.count(7, "count", { expectedVersion: 1n })).version, 2);
    await shelf.expectAvailable(7);
  });

  it("resolves a repeated count with the current ledger", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.count(7, "count", { expectedVersion: 1n });
    await shelf.adjust(2, "found");
    const again = await shelf.unchangedBy(() => shelf.count(7, "count", { expectedVersion: 1n }));
    assert.deepEqual(again, shelf.ledger({ declared: 10, declareTimeMicros: U, adjusted: -1, version: 3 }));
    await shelf.delete(U + 1);
    const gone = await shelf.unchangedBy(() => shelf.count(7, "count", { expectedVersion: 1n }));
    assert.deepEqual([gone.deleted, gone.version], [true, 4]);
  });

  it("rejects an ID of another count of the product", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.count(7, "count", { expectedVersion: 1n, reason: "yearly" });
    const same = { expectedVersion: 1n, reason: "yearly" };
    const error = await shelf.refused("ID_REUSED", () => shelf.count(8, "count", same));
    assert.match(error.message, /count_id/);
    await shelf.refused("ID_REUSED", () => shelf.count(7, "count", { ...same, expectedVersion: undefined }));
    await shelf.refused("ID_REUSED", () => shelf.count(7, "count", { ...same, expectedVersion: 2n }));
    await shelf.refused("ID_REUSED", () => shelf.count(7, "count", { ...same, reason: "" }));
  });

  it("applies counts of several products with one ID, each once", async () => {
    for (const [shelf, other] of shelfPairs(newShelf().store)) {
      await shelf.put(U, 10);
      await other.put(U, 10);
      const countId = shelf.id("count");
      await shelf.count(7, "", { countId });
      assert.equal((await other.count(7, "", { countId })).adjusted, -3);
      await shelf.unchangedBy(() => shelf.count(7, "", { countId }));
      await other.unchangedBy(() => other.count(7, "", { countId }));
      await other.refused("ID_REUSED", () => other.count(8, "", { countId }));
    }
  });

  it("accepts exactly one of many concurrent counts at one version", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    const counts = Array.from({ length: 10 }, (_, n) =>
      shelf.count(20 + n, `count-${n}`, { expectedVersion: 1n }),
    );
    const settled = await Promise.allSettled(counts);
    const won = settled.filter((result) => result.status === "fulfilled");
    assert.deepEqual([won.length, (await shelf.store.getLedger(shelf.productId)).version], [1, 2]);
  });
}

function adjustmentRules(newShelf: () => Shelf): void {
  it("adds and removes units, down to exactly 0, regardless of safety stock", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.setSafety(10);
    const known = { declared: 10, declareTimeMicros: U, safety: 10 };
    const more = shelf.ledger({ ...known, adjusted: 5, version: 3 });
    assert.deepEqual(await shelf.adjust(5, "received", { reason: "lorry" }), more);
    const { changeTimeMs, ...change } = await shelf.newestChange();
    assert.equal(changeTimeMs, (await shelf.store.getStock(shelf.productId)).updateTimeMs);
    const rest = { referenceId: shelf.id("received"), reason: "lorry", actor: "", details: undefined };
    assert.deepEqual(change, { cause: "adjusted", delta: 5, ledger: more, ...rest });
    assert.deepEqual(await shelf.adjust(-15, "lost"), shelf.ledger({ ...known, adjusted: -10, version: 4 }));
  });

  it("records an adjustment that does not change available with a delta of 0", async () => {
    const shelf = newShelf();
    await shelf.put(U, 1);
    await shelf.setSafety(5);
    await shelf.adjust(3, "received");
    const { delta, ledger } = await shelf.newestChange();
    assert.deepEqual([delta, ledger.adjusted, ledger.version], [0, 3, 3]);
  });

  it("rejects an adjustment of on hand below 0, and does not use up the ID", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.adjust(-4, "damaged");
    const error = await shelf.refused("STOCK_OUT_OF_RANGE", () => shelf.adjust(-7, "lost"));
    assert.ok(error.message.includes("-7") && error.message.includes("6"), error.message);
    assert.equal((await shelf.adjust(-6, "lost")).adjusted, -10);
    await shelf.refused("STOCK_OUT_OF_RANGE", () => shelf.adjust(-1, "more"));
    await shelf.refused("STOCK_OUT_OF_RANGE", () => shelf.adjust(-QUANTITY_MAX, "all"));
  });

  it("rejects a declaration that takes on hand above the int32 maximum, and one back towards it not", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.adjust(QUANTITY_MAX - 10, "received");
    const { message } = await shelf.refused("STOCK_OUT_OF_RANGE", () => shelf.put(U + 1, 11));
    assert.match(message, /^Cannot declare 11 of .*: on hand would be 2147483648, /);
    await shelf.refused("STOCK_OUT_OF_RANGE", () => shelf.put(U + 1, QUANTITY_MAX));
    // A refused event left no fence behind.
    await shelf.put(U + 1, 10);
    await shelf.put(U + 2, 0);
    await shelf.expectLedger({
      declared: 0,
      adjusted: QUANTITY_MAX - 10,
      declareTimeMicros: U + 2,
      version: 4,
    });
  });

  it("rejects an adjustment of on hand above the int32 maximum", async () => {
    const shelf = newShelf();
    await shelf.put(U, QUANTITY_MAX - 2);
    await shelf.refused("STOCK_OUT_OF_RANGE", () => shelf.adjust(3, "received"));
    assert.equal((await shelf.adjust(2, "received")).adjusted, 2);
    await shelf.refused("STOCK_OUT_OF_RANGE", () => shelf.adjust(1, "more"));
    await shelf.refused("STOCK_OUT_OF_RANGE", () => shelf.adjust(QUANTITY_MAX, "all"));
  });

  it("resolves a repeated adjustment with the current ledger, even if a new one would be rejected", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.adjust(-8, "lost");
    const again = await shelf.unchangedBy(() => shelf.adjust(-8, "lost"));
    assert.deepEqual(again, shelf.ledger({ declared: 10, declareTimeMicros: U, adjusted: -8, version: 2 }));
    await shelf.delete(U + 1);
    assert.equal((await shelf.unchangedBy(() => shelf.adjust(-8, "lost"))).deleted, true);
  });

  it("rejects an ID of another adjustment of the product", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.adjust(3, "found", { reason: "attic" });
    const error = await shelf.refused("ID_REUSED", () => shelf.adjust(4, "found", { reason: "attic" }));
    assert.match(error.message, /adjustment_id/);
    await shelf.refused("ID_REUSED", () => shelf.adjust(-3, "found", { reason: "attic" }));
    await shelf.refused("ID_REUSED", () => shelf.adjust(3, "found", { reason: "cellar" }));
  });

  it("applies adjustments of several products with one ID, each once", async () => {
    for (const [shelf, other] of shelfPairs(newShelf().store)) {
      await shelf.put(U, 10);
      await other.put(U, 10);
      const adjustmentId = shelf.id("found");
      await shelf.adjust(3, "", { adjustmentId });
      assert.equal((await other.adjust(3, "", { adjustmentId })).adjusted, 3);
      await shelf.unchangedBy(() => shelf.adjust(3, "", { adjustmentId }));
      await other.unchangedBy(() => other.adjust(3, "", { adjustmentId }));
      await other.refused("ID_REUSED", () => other.adjust(4, "", { adjustmentId }));
    }
  });

  it("distinguishes operations where a colon joins product and ID to the same text", async () => {
    const { store } = newShelf();
    const [first, second] = Array.from({ length: 2_000 }, (_, n) => `${RUN}-c${n}`).flatMap((id) =>
      store.bucketOf(id) === store.bucketOf(`${id}:a`)
        ? [new Shelf(store, id), new Shelf(store, `${id}:a`)]
        : [],
    );
    assert.ok(first !== undefined && second !== undefined);
    await first.put(U, 10);
    await second.put(U, 10);
    await first.adjust(1, "", { adjustmentId: "a:b" });
    assert.equal((await second.adjust(1, "", { adjustmentId: "b" })).adjusted, 1);
    await first.count(4, "", { countId: "a:b" });
    assert.equal((await second.count(4, "", { countId: "b" })).adjusted, -6);
  });

  it("has separate IDs for counts and adjustments", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.count(7, "same");
    assert.equal((await shelf.adjust(7, "same")).adjusted, 4);
  });

  it("applies every concurrent adjustment, and one that is sent many times only once", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    const many = Array.from({ length: 20 }, (_, n) => shelf.adjust(n + 1, `many-${n}`));
    const once = Array.from({ length: 20 }, () => shelf.adjust(1_000, "once"));
    await Promise.all([...many, ...once]);
    await shelf.expectLedger({ declared: 10, declareTimeMicros: U, adjusted: 1_210, version: 22 });
    assert.deepEqual(
      (await shelf.changes()).map((change) => change.ledger.version),
      Array.from({ length: 22 }, (_, n) => 22 - n),
    );
  });
}

function safetyRules(newShelf: () => Shelf): void {
  it("withholds units from sale, and returns them", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    const kept = shelf.ledger({ declared: 10, declareTimeMicros: U, safety: 4, version: 2 });
    assert.deepEqual(await shelf.setSafety(4), kept);
    await shelf.expectAvailable(6);
    const { changeTimeMs, ...change } = await shelf.newestChange();
    assert.equal(changeTimeMs, (await shelf.store.getStock(shelf.productId)).updateTimeMs);
    const rest = { referenceId: "", reason: "", actor: "", details: undefined };
    assert.deepEqual(change, { cause: "safety", delta: -4, ledger: kept, ...rest });
    assert.deepEqual(await shelf.setSafety(0), { ...kept, safety: 0, version: 3 });
    await shelf.expectAvailable(10);
  });

  it("changes nothing when set to its current value", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.unchangedBy(() => shelf.setSafety(0));
    const set = await shelf.setSafety(4);
    assert.deepEqual(await shelf.unchangedBy(() => shelf.setSafety(4)), set);
  });
}

function changeRules(newShelf: () => Shelf): void {
  it("have the ledger after each change, with deltas that add up to available", async () => {
    const shelf = newShelf();
    const ledgers = [
      (await shelf.put(U, 10, LAMP)).ledger,
      await shelf.setSafety(12),
      await shelf.adjust(5, "found"),
      (await shelf.delete(U + 1)).ledger,
      (await shelf.put(U + 2, 20)).ledger,
      await shelf.count(14, "count"),
    ];
    const changes = await shelf.changes();
    assert.deepEqual(
      changes.map((change) => change.ledger),
      ledgers.toReversed(),
    );
    assert.deepEqual(
      changes.map((change) => [change.cause, change.delta]),
      [
        ["counted", -11],
        ["declared", 10],
        ["deleted", 0],
        ["adjusted", 3],
        ["safety", -10],
        ["declared", 10],
      ],
    );
    await shelf.expectAvailable(2);
  });

  it("are listed page by page, newest first", async () => {
    const shelf = newShelf();
    await shelf.put(U, 0);
    for (let n = 2; n <= 7; n++) {
      await shelf.adjust(1, `add-${n}`);
    }
    const versions = async (limit: number, beforeVersion?: number) =>
      (await shelf.changes(limit, beforeVersion)).map((change) => change.ledger.version);
    assert.deepEqual(await versions(3), [7, 6, 5]);
    assert.deepEqual(await versions(3, 5), [4, 3, 2]);
    assert.deepEqual(await versions(3, 2), [1]);
    assert.deepEqual(await versions(3, 1), []);
    assert.deepEqual(await versions(3, 0), []);
    assert.deepEqual(await versions(2, 8), [7, 6]);
    assert.deepEqual(await versions(2, 1_000), [7, 6]);
  });

  it("are kept for at least the latest 100 changes", async () => {
    const shelf = newShelf();
    await shelf.put(U, 0);
    for (let n = 2; n <= 105; n++) {
      await shelf.setSafety(n);
    }
    assert.deepEqual(
      (await shelf.changes(100)).map((change) => [change.ledger.version, change.ledger.safety]),
      Array.from({ length: 100 }, (_, n) => [105 - n, 105 - n]),
    );
    await shelf.expectLedger({ declareTimeMicros: U, safety: 105, version: 105 });
  });
}

function textRules(newShelf: () => Shelf): void {
  const odd = [
    ...["a b", "a", "a:", "a:b", "{a}", "{a}b", "}{", "{}", "a*", "a?[b]", "a|b", "a/b", "a,b", "a\\b"],
    ...[
      "'a'",
      '"a"',
      '{"a":1}',
      "__proto__",
      "constructor",
      "café",
      "cafe\u0301",
      "商品",
      "🛋️",
      "A",
      "%s",
      "-1",
    ],
  ];

  it("distinguishes products with unusual IDs", async () => {
    const { store } = newShelf();
    for (const place of [(text: string) => `${RUN}${text}`, (text: string) => `${text}${RUN}`]) {
      const shelves = odd.map((text) => new Shelf(store, place(text)));
      for (const [index, shelf] of shelves.entries()) {
        await shelf.put(U, index);
        await shelf.adjust(1, "", { adjustmentId: shelf.productId });
        await shelf.unchangedBy(() => shelf.adjust(1, "", { adjustmentId: shelf.productId }));
        assert.equal((await shelf.newestChange()).referenceId, shelf.productId);
      }
      const stocks = await store.batchGetStock(shelves.map((shelf) => shelf.productId));
      assert.deepEqual(
        stocks.map((stock) => [stock?.productId, stock?.available]),
        shelves.map((shelf, index) => [shelf.productId, index + 1]),
      );
    }
  });

  it("keeps details and reasons unchanged", async () => {
    const shelf = newShelf();
    const texts = [
      "",
      " ",
      "Ωmega “7” 🛋️",
      `{"name":"x"}\\u0000'"`,
      "cafe\u0301",
      "null",
      "\u2028",
      "é".repeat(200),
    ];
    const prices = [0, 0.1 + 0.2, 19.99, 1e-7, 123_456_789.123_456_78, 1e12, 5, 1];
    for (const [index, text] of texts.entries()) {
      const price = prices[index] ?? 0;
      const details = { name: text, description: text.repeat(40), price, collectionId: text.slice(0, 30) };
      await shelf.put(U + index, index, details);
      assert.deepEqual((await shelf.store.getStock(shelf.productId)).details, details);
      assert.deepEqual((await shelf.newestChange()).details, details);
      await shelf.adjust(1, `text-${index}`, { reason: text });
      assert.equal((await shelf.newestChange()).reason, text);
      await shelf.unchangedBy(() => shelf.adjust(1, `text-${index}`, { reason: text }));
    }
  });
}

function clockRules(newShelf: () => Shelf, makeStore: MakeStore): void {
  /** Runs on a separate store with a fixed clock. Skips if the test cannot control the clock. */
  function withClock(
    name: string,
    body: (shelf: Shelf, setClock: (nowMs: number) => void) => Promise<void>,
  ): void {
    it(name, async (t: TestContext) => {
      const { store, setClock, close } = await makeStore();
      try {
        if (setClock === undefined) {
          t.skip("the test cannot control the clock of this store");
        } else {
          await body(new Shelf(store), setClock);
        }
      } finally {
        await close();
      }
    });
  }
  const noon = 1_790_000_000_000;

  it("rejects an event more than five minutes ahead, which would block later updates", async () => {
    const [shelf, unknown] = [newShelf(), newShelf()];
    await shelf.put(U, 10, LAMP);
    const year2100 = 4_102_444_800_000_000;
    const year9999 = 253_402_300_799_000_000;
    for (const ahead of [(Date.now() + 6 * MINUTE_MS) * 1000, year2100, year9999]) {
      for (const event of [() => shelf.put(ahead, 99, TORCH), () => shelf.delete(ahead)]) {
        const { violations } = await shelf.refused("INVALID_INPUT", event);
        assert.deepEqual(
          violations.map((violation) => violation.field),
          ["update_time"],
        );
      }
      await refused("INVALID_INPUT", unknown.put(ahead, 99, TORCH));
      await refused("INVALID_INPUT", unknown.delete(ahead));
      await refused("PRODUCT_UNKNOWN", unknown.store.getLedger(unknown.productId));
    }
    assert.equal((await shelf.put(U + 1, 11)).applied, true);
    const soon = (Date.now() + 4 * MINUTE_MS) * 1000;
    assert.equal((await shelf.put(soon, 12)).ledger.declareTimeMicros, soon);
  });

  it("uses the store's time for an event without one", async () => {
    const shelf = newShelf();
    assert.equal((await shelf.put(undefined, 10, LAMP)).applied, true);
    const { declareTimeMicros = 0 } = await shelf.store.getLedger(shelf.productId);
    assert.ok(Math.abs(declareTimeMicros / 1000 - Date.now()) < MINUTE_MS, `took ${declareTimeMicros}`);
    assert.equal((await shelf.unchangedBy(() => shelf.put(U, 99, TORCH))).applied, false);
    assert.equal((await shelf.delete(undefined)).ledger.deleted, true);
  });

  withClock(
    "accepts an event exactly five minutes ahead, and not a microsecond more",
    async (shelf, setClock) => {
      setClock(noon);
      const bound = (noon + 5 * MINUTE_MS) * 1000;
      await shelf.put(U, 10);
      await shelf.refused("INVALID_INPUT", () => shelf.put(bound + 1, 11));
      await shelf.refused("INVALID_INPUT", () => shelf.delete(bound + 1));
      assert.equal((await shelf.put(bound, 11)).applied, true);
      assert.equal((await shelf.delete(bound)).applied, true);
    },
  );

  withClock("is the time of every change, and of events without one", async (shelf, setClock) => {
    setClock(noon);
    await shelf.put(undefined, 10);
    setClock(noon + 1);
    await shelf.put(undefined, 11);
    setClock(noon + 7);
    await shelf.adjust(1, "found");
    setClock(noon + 9);
    await shelf.unchangedBy(() => shelf.adjust(1, "found"));
    await shelf.expectLedger({ declared: 11, declareTimeMicros: (noon + 1) * 1000, adjusted: 1, version: 3 });
    assert.equal((await shelf.store.getStock(shelf.productId)).updateTimeMs, noon + 7);
    assert.deepEqual(
      (await shelf.changes()).map((change) => change.changeTimeMs),
      [noon + 7, noon + 1, noon],
    );
  });

  withClock("lets a retry be recognized for at least 24 hours", async (shelf, setClock) => {
    setClock(noon);
    await shelf.put(U, 10);
    await shelf.adjust(-2, "lost");
    await shelf.count(20, "count");
    setClock(noon + 24 * HOUR_MS - 1);
    await shelf.adjust(1, "another"); // gives the store an occasion to forget
    await shelf.unchangedBy(() => shelf.adjust(-2, "lost"));
    await shelf.unchangedBy(() => shelf.count(20, "count"));
    await shelf.refused("ID_REUSED", () => shelf.adjust(-3, "lost"));
    await shelf.refused("ID_REUSED", () => shelf.count(21, "count"));
  });
}

function permutations<T>(items: readonly T[]): T[][] {
  return items.length === 0
    ? [[]]
    : items.flatMap((item, index) =>
        permutations(items.toSpliced(index, 1)).map((others) => [item, ...others]),
      );
}
