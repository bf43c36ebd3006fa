import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, it, type TestContext } from "node:test";
import { InventoryError, type InventoryErrorCode } from "../../server/inventory/errors.ts";
import type { Ledger, ProductDetails, StockChange } from "../../server/inventory/ledger.ts";
import type { PutResult } from "../../server/inventory/product-event.ts";
import type { InventoryStore, StockAdjustment, StockCount } from "../../server/inventory/store.ts";

/** A store that a suite opened, and closes when it is done. */
export interface StoreUnderTest {
  readonly store: InventoryStore;
  /** Moves the store's clock to a time, ms since 1970. Absent where the clock is not the test's to move. */
  readonly setClock?: ((nowMs: number) => void) | undefined;
  close(): Promise<void>;
}

export type MakeStore = () => Promise<StoreUnderTest>;

const QUANTITY_MAX = 2_147_483_647;
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
/** A seller's time long past, in 16 digits of µs: a store that keeps it as a short float loses the last ones. */
const U = 1_700_000_000_123_456;
/** A store may be shared by many runs, so every ID has the run in it. */
const RUN = randomUUID().slice(0, 8);

const LAMP: ProductDetails = { name: "Lamp", description: "Warm", price: 19.99, collectionId: "light" };
const TORCH: ProductDetails = { name: "Torch", description: "Cold", price: 5, collectionId: "" };

let productsMade = 0;

/** One product of its own for one test, and short words for what is done to it. */
class Shelf {
  readonly productId: string;
  readonly store: InventoryStore;

  constructor(store: InventoryStore, productId = `p${++productsMade}-${RUN}`) {
    this.store = store;
    this.productId = productId;
  }

  /** An operation's ID that no other test uses. */
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

  /** Checks the whole ledger; what is not named is as in a product of which nothing was said. */
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

  /** Runs what no reader may notice: ledger, view, version, time and change records stay. */
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

  /** A refusal, which besides its code has to leave everything as it was. */
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

/** The rules that every store obeys, as one suite for all of them. */
export function describeStoreContract(
  name: string,
  makeStore: MakeStore,
  options: { readonly skip?: string | undefined } = {},
): void {
  describe(`${name} obeys the store contract`, { skip: options.skip ?? false }, () => {
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
  it("starts a product at version 1 with what its seller declared", async () => {
    const shelf = newShelf();
    const expected = shelf.ledger({ declared: 10, declareTimeMicros: U, version: 1 });
    assert.deepEqual(await shelf.put(U, 10, LAMP), { applied: true, ledger: expected });
    await shelf.expectLedger(expected);
    const { updateTimeMs, ...stock } = await shelf.store.getStock(shelf.productId);
    assert.deepEqual(stock, { productId: shelf.productId, available: 10, version: 1, details: LAMP });
    assert.equal(updateTimeMs, (await shelf.newestChange()).changeTimeMs);
  });

  it("derives available from declared, adjusted and safety, and never shows it below 0", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.adjust(-4, "damaged");
    await shelf.setSafety(5);
    await shelf.expectAvailable(1);
    await shelf.setSafety(7);
    await shelf.expectAvailable(0);
    await shelf.expectLedger({ declared: 10, declareTimeMicros: U, adjusted: -4, safety: 7, version: 4 });
  });

  it("gives nothing back when a seller's edit repeats the number, and takes a changed one as a difference", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10, LAMP);
    await shelf.adjust(-4, "damaged");
    await shelf.put(U + 1, 10, TORCH);
    await shelf.expectAvailable(6);
    await shelf.put(U + 2, 13, TORCH);
    await shelf.expectAvailable(9);
    await shelf.expectLedger({ declared: 13, declareTimeMicros: U + 2, adjusted: -4, version: 4 });
  });

  it("keeps an on hand below 0 in the ledger, so that later supply fills the gap first", async () => {
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

  it("grows the version by one with each visible change, and never lets it fall", async () => {
    const shelf = newShelf();
    const answers = [
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
      answers.map((ledger) => ledger.version),
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
  it("answers PRODUCT_UNKNOWN to everything asked of an unknown product, and leaves it unknown", async () => {
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

  it("hides a deleted product from shoppers and writers, and still tells its ledger and changes", async () => {
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

  it("reads many products in the order asked for, with gaps for unknown and deleted ones", async () => {
    const [one, two, gone, never] = [newShelf(), newShelf(), newShelf(), newShelf()];
    await one.put(U, 1, LAMP);
    await two.put(U, 2);
    await gone.put(U, 3);
    await gone.delete(U + 1);
    const asked = [two, never, one, gone, two].map((shelf) => shelf.productId);
    const stocks = await one.store.batchGetStock(asked);
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
  it("drops an event one microsecond older than the stored one, and applies one a microsecond newer", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10, LAMP);
    const older = await shelf.unchangedBy(() => shelf.put(U - 1, 99, TORCH));
    const expected = { declared: 10, declareTimeMicros: U, version: 1 };
    assert.deepEqual(older, { applied: false, ledger: shelf.ledger(expected) });
    assert.equal((await shelf.put(U + 1, 12, TORCH)).applied, true);
    await shelf.expectLedger({ declared: 12, declareTimeMicros: U + 1, version: 2 });
    assert.deepEqual((await shelf.store.getStock(shelf.productId)).details, TORCH);
  });

  it("changes nothing when an event comes again", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10, LAMP);
    assert.equal((await shelf.unchangedBy(() => shelf.put(U, 10, LAMP))).applied, true);
  });

  it("takes a newer event of the same content as a visible change: the declaration is newer", async () => {
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

  it("lets a declared 0 win a tie, and a newer 0 empty the shelf", async () => {
    const [tied, newer] = [newShelf(), newShelf()];
    await tied.put(U, 9);
    await tied.put(U, 0);
    await tied.expectLedger({ declareTimeMicros: U, version: 2 });
    await newer.put(U, 9);
    await newer.put(U + 1, 0);
    await newer.expectLedger({ declareTimeMicros: U + 1, version: 2 });
  });

  it("changes the details alone where the event has no stock number", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10, LAMP);
    assert.equal((await shelf.put(U + 5, undefined, TORCH)).applied, true);
    await shelf.expectLedger({ declared: 10, declareTimeMicros: U, version: 2 });
    const { cause, delta, details } = await shelf.newestChange();
    assert.deepEqual({ cause, delta, details }, { cause: "details", delta: 0, details: TORCH });
    await shelf.unchangedBy(() => shelf.put(U + 6, undefined, TORCH));
    // An edit of the details does not shut out an older event that has a stock number.
    assert.equal((await shelf.put(U + 3, 8, LAMP)).applied, true);
    await shelf.expectLedger({ declared: 8, declareTimeMicros: U + 3, version: 3 });
    assert.deepEqual((await shelf.store.getStock(shelf.productId)).details, TORCH);
  });

  it("changes the number alone where the event has no details", async () => {
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

  it("takes an event with neither number nor details as word that the product exists", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10, LAMP);
    assert.equal((await shelf.unchangedBy(() => shelf.put(U + 5))).applied, true);
    assert.equal((await shelf.unchangedBy(() => shelf.put(U + 4))).applied, false);
    assert.equal((await shelf.unchangedBy(() => shelf.delete(U + 3))).applied, false);
  });

  it("takes U = 0 as a declaration that the seller's first event supersedes", async () => {
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
  it("records a deletion once; the numbers stay in the ledger", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10, LAMP);
    const expected = shelf.ledger({ declared: 10, declareTimeMicros: U, version: 2, deleted: true });
    assert.deepEqual(await shelf.delete(U + 1), { applied: true, ledger: expected });
    const { changeTimeMs, ...change } = await shelf.newestChange();
    assert.ok(changeTimeMs > 0);
    const told = { delta: 0, referenceId: "", reason: "", details: undefined };
    assert.deepEqual(change, { cause: "deleted", ledger: expected, ...told });
    assert.equal((await shelf.unchangedBy(() => shelf.delete(U + 1))).applied, true);
    assert.equal((await shelf.unchangedBy(() => shelf.delete(U + 9))).applied, true);
    assert.equal((await shelf.unchangedBy(() => shelf.delete(U + 5))).applied, false);
    // A repeated deletion moved the fence to its own time.
    assert.equal((await shelf.put(U + 8, 10, LAMP)).applied, false);
    await refused("PRODUCT_UNKNOWN", shelf.store.getStock(shelf.productId));
  });

  it("does not revive a product by an update that comes late", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10, LAMP);
    await shelf.delete(U + 5);
    const late = await shelf.put(U + 4, 12, LAMP);
    assert.deepEqual([late.applied, late.ledger.deleted], [false, true]);
    await refused("PRODUCT_UNKNOWN", shelf.store.getStock(shelf.productId));
    assert.deepEqual(await shelf.store.batchGetStock([shelf.productId]), [undefined]);
  });

  it("leaves a tombstone of a product that it never saw", async () => {
    const shelf = newShelf();
    const deleted = await shelf.delete(U);
    assert.deepEqual(deleted, { applied: true, ledger: shelf.ledger({ version: 1, deleted: true }) });
    assert.deepEqual([(await shelf.newestChange()).cause, (await shelf.changes()).length], ["deleted", 1]);
    assert.equal((await shelf.put(U - 1, 4, LAMP)).applied, false);
    await refused("PRODUCT_UNKNOWN", shelf.store.getStock(shelf.productId));
  });

  it("drops a deletion older than the newest update", async () => {
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

  it("revives a deleted product by a newer update, with its ledger and its version going on", async () => {
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

  it("revives with details alone, the number being what was last declared", async () => {
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
  it("makes on hand the count, whatever it was, and records the correction", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.setSafety(2);
    const known = { declared: 10, declareTimeMicros: U, safety: 2 };
    const up = shelf.ledger({ ...known, adjusted: 5, version: 3 });
    assert.deepEqual(await shelf.count(15, "up", { reason: "shelf 4" }), up);
    const { changeTimeMs, ...change } = await shelf.newestChange();
    assert.equal(changeTimeMs, (await shelf.store.getStock(shelf.productId)).updateTimeMs);
    const told = { referenceId: shelf.id("up"), reason: "shelf 4", details: undefined };
    assert.deepEqual(change, { cause: "counted", delta: 5, ledger: up, ...told });
    assert.deepEqual(await shelf.count(0, "down"), shelf.ledger({ ...known, adjusted: -10, version: 4 }));
    assert.equal((await shelf.newestChange()).delta, -13); // 2 of the 15 were kept back
    await shelf.put(U + 1, 3); // on hand falls to -7
    assert.equal((await shelf.count(QUANTITY_MAX, "full")).adjusted, QUANTITY_MAX - 3);
    await shelf.expectAvailable(QUANTITY_MAX - 2);
  });

  it("changes nothing when the count is what was known, and still remembers its ID", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.unchangedBy(() => shelf.count(10, "same"));
    await shelf.adjust(-4, "damaged");
    await shelf.unchangedBy(() => shelf.count(10, "same"));
    await shelf.refused("ID_REUSED", () => shelf.count(9, "same"));
  });

  it("counts only at the expected version, and a refused count leaves its ID free", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    for (const expectedVersion of [0, 2]) {
      await shelf.refused("VERSION_MISMATCH", () => shelf.count(7, "count", { expectedVersion }));
    }
    await shelf.refused("VERSION_MISMATCH", () => shelf.count(10, "no-op", { expectedVersion: 2 }));
    assert.equal((await shelf.count(7, "count", { expectedVersion: 1 })).version, 2);
    await shelf.expectAvailable(7);
  });

  it("answers a repeated count with the ledger as it now is", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.count(7, "count", { expectedVersion: 1 });
    await shelf.adjust(2, "found");
    const again = await shelf.unchangedBy(() => shelf.count(7, "count", { expectedVersion: 1 }));
    assert.deepEqual(again, shelf.ledger({ declared: 10, declareTimeMicros: U, adjusted: -1, version: 3 }));
    await shelf.delete(U + 1);
    const gone = await shelf.unchangedBy(() => shelf.count(7, "count", { expectedVersion: 1 }));
    assert.deepEqual([gone.deleted, gone.version], [true, 4]);
  });

  it("refuses an ID that stands for another count", async () => {
    const [shelf, other] = [newShelf(), newShelf()];
    await shelf.put(U, 10);
    await other.put(U, 10);
    await shelf.count(7, "count", { expectedVersion: 1, reason: "yearly" });
    const same = { expectedVersion: 1, reason: "yearly" };
    await shelf.refused("ID_REUSED", () => shelf.count(8, "count", same));
    await shelf.refused("ID_REUSED", () => shelf.count(7, "count", { ...same, expectedVersion: undefined }));
    await shelf.refused("ID_REUSED", () => shelf.count(7, "count", { ...same, expectedVersion: 2 }));
    await shelf.refused("ID_REUSED", () => shelf.count(7, "count", { ...same, reason: "" }));
    const elsewhere = { ...same, countId: shelf.id("count") };
    const error = await other.refused("ID_REUSED", () => other.count(7, "", elsewhere));
    assert.match(error.message, /count_id/);
  });

  it("lets exactly one of many counts at one version through", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    const counts = Array.from({ length: 10 }, (_, n) =>
      shelf.count(20 + n, `count-${n}`, { expectedVersion: 1 }),
    );
    const settled = await Promise.allSettled(counts);
    const won = settled.filter((result) => result.status === "fulfilled");
    assert.deepEqual([won.length, (await shelf.store.getLedger(shelf.productId)).version], [1, 2]);
  });
}

function adjustmentRules(newShelf: () => Shelf): void {
  it("adds and takes units, down to exactly 0, whatever is kept back", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.setSafety(10);
    const known = { declared: 10, declareTimeMicros: U, safety: 10 };
    const more = shelf.ledger({ ...known, adjusted: 5, version: 3 });
    assert.deepEqual(await shelf.adjust(5, "received", { reason: "lorry" }), more);
    const { changeTimeMs, ...change } = await shelf.newestChange();
    assert.equal(changeTimeMs, (await shelf.store.getStock(shelf.productId)).updateTimeMs);
    const told = { referenceId: shelf.id("received"), reason: "lorry", details: undefined };
    assert.deepEqual(change, { cause: "adjusted", delta: 5, ledger: more, ...told });
    assert.deepEqual(await shelf.adjust(-15, "lost"), shelf.ledger({ ...known, adjusted: -10, version: 4 }));
  });

  it("records an adjustment that shoppers do not see, with a delta of 0", async () => {
    const shelf = newShelf();
    await shelf.put(U, 1);
    await shelf.setSafety(5);
    await shelf.adjust(3, "received");
    const { delta, ledger } = await shelf.newestChange();
    assert.deepEqual([delta, ledger.adjusted, ledger.version], [0, 3, 3]);
  });

  it("refuses to take on hand below 0, and leaves the ID free", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.adjust(-4, "damaged");
    const error = await shelf.refused("STOCK_OUT_OF_RANGE", () => shelf.adjust(-7, "lost"));
    assert.ok(error.message.includes("-7") && error.message.includes("6"), error.message);
    assert.equal((await shelf.adjust(-6, "lost")).adjusted, -10);
    await shelf.refused("STOCK_OUT_OF_RANGE", () => shelf.adjust(-1, "more"));
    await shelf.refused("STOCK_OUT_OF_RANGE", () => shelf.adjust(-QUANTITY_MAX, "all"));
  });

  it("refuses to take on hand above the int32 maximum", async () => {
    const shelf = newShelf();
    await shelf.put(U, QUANTITY_MAX - 2);
    await shelf.refused("STOCK_OUT_OF_RANGE", () => shelf.adjust(3, "received"));
    assert.equal((await shelf.adjust(2, "received")).adjusted, 2);
    await shelf.refused("STOCK_OUT_OF_RANGE", () => shelf.adjust(1, "more"));
    await shelf.refused("STOCK_OUT_OF_RANGE", () => shelf.adjust(QUANTITY_MAX, "all"));
  });

  it("answers a repeated adjustment with the ledger as it now is, even where it would be refused now", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.adjust(-8, "lost");
    const again = await shelf.unchangedBy(() => shelf.adjust(-8, "lost"));
    assert.deepEqual(again, shelf.ledger({ declared: 10, declareTimeMicros: U, adjusted: -8, version: 2 }));
    await shelf.delete(U + 1);
    assert.equal((await shelf.unchangedBy(() => shelf.adjust(-8, "lost"))).deleted, true);
  });

  it("refuses an ID that stands for another adjustment", async () => {
    const [shelf, other] = [newShelf(), newShelf()];
    await shelf.put(U, 10);
    await other.put(U, 10);
    await shelf.adjust(3, "found", { reason: "attic" });
    await shelf.refused("ID_REUSED", () => shelf.adjust(4, "found", { reason: "attic" }));
    await shelf.refused("ID_REUSED", () => shelf.adjust(-3, "found", { reason: "attic" }));
    await shelf.refused("ID_REUSED", () => shelf.adjust(3, "found", { reason: "cellar" }));
    const elsewhere = { reason: "attic", adjustmentId: shelf.id("found") };
    const error = await other.refused("ID_REUSED", () => other.adjust(3, "", elsewhere));
    assert.match(error.message, /adjustment_id/);
  });

  it("keeps the IDs of counts and adjustments apart", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.count(7, "same");
    assert.equal((await shelf.adjust(7, "same")).adjusted, 4);
  });

  it("applies many at once without losing one, and one sent many times only once", async () => {
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
  it("keeps units back from shoppers, and gives them back", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    const kept = shelf.ledger({ declared: 10, declareTimeMicros: U, safety: 4, version: 2 });
    assert.deepEqual(await shelf.setSafety(4), kept);
    await shelf.expectAvailable(6);
    const { changeTimeMs, ...change } = await shelf.newestChange();
    assert.equal(changeTimeMs, (await shelf.store.getStock(shelf.productId)).updateTimeMs);
    const told = { referenceId: "", reason: "", details: undefined };
    assert.deepEqual(change, { cause: "safety", delta: -4, ledger: kept, ...told });
    assert.deepEqual(await shelf.setSafety(0), { ...kept, safety: 0, version: 3 });
    await shelf.expectAvailable(10);
  });

  it("changes nothing when it is set to what it is", async () => {
    const shelf = newShelf();
    await shelf.put(U, 10);
    await shelf.unchangedBy(() => shelf.setSafety(0));
    const set = await shelf.setSafety(4);
    assert.deepEqual(await shelf.unchangedBy(() => shelf.setSafety(4)), set);
  });
}

function changeRules(newShelf: () => Shelf): void {
  it("tells the ledger after each change, with deltas that add up to what is available", async () => {
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

  it("pages through them, newest first", async () => {
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

  it("looks back on the latest 100 at least", async () => {
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

  it("tells products of odd IDs apart", async () => {
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

  it("keeps details and reasons to the letter", async () => {
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
  /** Runs on a store of its own with a clock that stands still; skips where no clock can be moved. */
  function withClock(
    name: string,
    body: (shelf: Shelf, setClock: (nowMs: number) => void) => Promise<void>,
  ): void {
    it(name, async (t: TestContext) => {
      const { store, setClock, close } = await makeStore();
      try {
        if (setClock === undefined) {
          t.skip("this store's clock cannot be moved");
        } else {
          await body(new Shelf(store), setClock);
        }
      } finally {
        await close();
      }
    });
  }
  const noon = 1_790_000_000_000;

  it("refuses an event more than five minutes ahead, so that it cannot freeze the product", async () => {
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

  it("takes the store's time for an event without one", async () => {
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

  withClock("stamps an event without a time, and every change, by its clock", async (shelf, setClock) => {
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

  withClock("tells a retry apart for 24 hours at least", async (shelf, setClock) => {
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
