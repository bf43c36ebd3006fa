import assert from "node:assert/strict";
import { it } from "node:test";
import {
  CORRECTIONS_NAMED_MAX,
  positionOf,
  RETURNS_NAMED_MAX,
} from "../../server/inventory/change-history.ts";
import type { StockChange } from "../../server/inventory/ledger.ts";
import type { InventoryStore } from "../../server/inventory/store.ts";
import { until } from "../support/until.ts";
import { hasLapsed, newId, ReservationFixture, SOON_MS, U } from "./reservation-fixture.ts";
import type { MakeStore, StoreSettings } from "./store-contract.ts";

const ALL = { limit: 1_000, after: undefined };

/** What a reference has changed. */
export function referenceRules(storeOf: () => InventoryStore, makeStore: MakeStore): void {
  it("a reservation: every step of every product, with its returns, and nothing else", async () => {
    const store = storeOf();
    const fixture = new ReservationFixture(store);
    const [one, two] = [await fixture.shelf(10), await fixture.shelf(10)];
    const [order, other, back] = [newId("order"), newId("order"), newId("return")];
    await fixture.reserve(order, [one.units(3), two.units(2)]);
    await fixture.reserve(other, [one.units(1)]);
    await adjust(store, one.productId, 5, newId("adjust"));
    await fixture.commit(order, [one.units(3)]);
    await fixture.return(order, back, [one.units(1)]);
    await fixture.commit(other);
    const expected = [
      [one.productId, "returned", back],
      [one.productId, "committed", order],
      [two.productId, "released", order],
      [one.productId, "reserved", order],
      [two.productId, "reserved", order],
    ];
    const all = await store.findChanges({ referenceId: order, productId: undefined }, ALL);
    assert.deepEqual(stepsOf(all.changes).toSorted(), expected.toSorted());
    assert.equal(all.truncated, false);
    assertNewestFirst(all.changes);
    for (const shelf of [one, two]) {
      const { changes, truncated } = await store.findChanges(
        { referenceId: order, productId: shelf.productId },
        ALL,
      );
      assert.deepEqual(
        stepsOf(changes),
        expected.filter(([productId]) => productId === shelf.productId),
      );
      assert.equal(truncated, false);
    }
    const elsewhere = await fixture.shelf(1);
    assert.deepEqual(
      await store.findChanges({ referenceId: order, productId: elsewhere.productId }, ALL),
      { changes: [], truncated: false },
      "a product that the order does not have",
    );
  });

  it("an expired reservation that was committed late", async () => {
    const store = storeOf();
    const fixture = new ReservationFixture(store);
    const shelf = await fixture.shelf(10);
    const order = newId("order");
    await fixture.reserveExpired(order, [shelf.units(2)]);
    await fixture.commit(order);
    const { changes, truncated } = await store.findChanges({ referenceId: order, productId: undefined }, ALL);
    assert.deepEqual(
      changes.map(({ cause }) => cause),
      ["committed", "reserved", "expired", "reserved"],
    );
    assert.equal(truncated, false);
  });

  it("an adjustment, a count and a return by their own IDs; a count that corrected nothing has no changes", async () => {
    const store = storeOf();
    const fixture = new ReservationFixture(store);
    const shelf = await fixture.shelf(10);
    const { productId } = shelf;
    const [order, back] = [newId("order"), newId("return")];
    const [adjustmentId, countId, same] = [newId("adjust"), newId("count"), newId("count")];
    await adjust(store, productId, 5, adjustmentId);
    await count(store, productId, 9, countId);
    await count(store, productId, 9, same);
    await fixture.reserve(order, [shelf.units(2)]);
    await fixture.commit(order);
    await fixture.return(order, back, [shelf.units(1)]);
    for (const asked of [undefined, productId]) {
      const find = (referenceId: string) => store.findChanges({ referenceId, productId: asked }, ALL);
      assert.deepEqual(stepsOf((await find(adjustmentId)).changes), [[productId, "adjusted", adjustmentId]]);
      assert.deepEqual(stepsOf((await find(countId)).changes), [[productId, "counted", countId]]);
      assert.deepEqual(stepsOf((await find(back)).changes), [[productId, "returned", back]]);
      assert.deepEqual(await find(same), { changes: [], truncated: false });
      for (const id of [adjustmentId, countId, back]) {
        assert.equal((await find(id)).truncated, false);
      }
    }
  });

  it("all operations that share an ID", async () => {
    const store = storeOf();
    const fixture = new ReservationFixture(store);
    const [shelf, other] = [await fixture.shelf(10), await fixture.shelf(10)];
    const id = newId("shared");
    await adjust(store, shelf.productId, 5, id);
    await count(store, shelf.productId, 9, id);
    await fixture.reserve(id, [other.units(2)]);
    await fixture.commit(id);
    await fixture.return(id, id, [other.units(2)]);
    const { changes, truncated } = await store.findChanges({ referenceId: id, productId: undefined }, ALL);
    assert.deepEqual(changes.map(({ cause }) => cause).toSorted(), [
      "adjusted",
      "committed",
      "counted",
      "reserved",
      "returned",
    ]);
    assert.equal(truncated, false);
  });

  it("an ID that more products of a bucket share than its record names: the latest ones, as truncated", async () => {
    const store = storeOf();
    const shared = newId("stocktake");
    const inBucket = Array.from({ length: 5_000 }, () => newId("p")).filter((id) => store.bucketOf(id) === 0);
    const ids = inBucket.slice(0, CORRECTIONS_NAMED_MAX + 20);
    assert.equal(ids.length, CORRECTIONS_NAMED_MAX + 20);
    const [last = "", ...first] = ids.toReversed();
    await Promise.all(
      ids.map((productId) =>
        store.putProduct({ productId, declared: 1, details: undefined, updateTimeMicros: U }),
      ),
    );
    await Promise.all(first.map((productId) => adjust(store, productId, 1, shared)));
    await adjust(store, last, 1, shared);
    const { changes, truncated } = await store.findChanges(
      { referenceId: shared, productId: undefined },
      ALL,
    );
    assert.equal(truncated, true);
    assert.equal(changes.length, CORRECTIONS_NAMED_MAX);
    assert.equal(new Set(changes.map(({ ledger }) => ledger.productId)).size, CORRECTIONS_NAMED_MAX);
    assert.ok(changes.some(({ ledger }) => ledger.productId === last));
    const dropped = ids.find((id) => changes.every(({ ledger }) => ledger.productId !== id)) ?? "";
    for (const productId of [last, dropped]) {
      const found = await store.findChanges({ referenceId: shared, productId }, ALL);
      assert.deepEqual(stepsOf(found.changes), [[productId, "adjusted", shared]]);
      assert.equal(found.truncated, false);
    }
  });

  it("an unknown ID: nothing, and it may have been forgotten", async () => {
    const store = storeOf();
    const { productId } = await new ReservationFixture(store).shelf(10);
    const referenceId = newId("never");
    const nothing = { changes: [], truncated: true };
    assert.deepEqual(await store.findChanges({ referenceId, productId: undefined }, ALL), nothing);
    // The whole history of the product is kept, so it is known that the ID changed nothing.
    assert.deepEqual(await store.findChanges({ referenceId, productId }, ALL), {
      changes: [],
      truncated: false,
    });
    await assert.rejects(store.findChanges({ referenceId, productId: newId("p") }, ALL), {
      code: "PRODUCT_UNKNOWN",
    });
  });

  it("an ID that was released before it was reserved has no changes", async () => {
    const store = storeOf();
    const referenceId = newId("order");
    await store.reservations.release(referenceId);
    assert.deepEqual(await store.findChanges({ referenceId, productId: undefined }, ALL), {
      changes: [],
      truncated: false,
    });
  });

  it("pages over several products, without a gap or a repetition, while more changes are made", async () => {
    const store = storeOf();
    const fixture = new ReservationFixture(store);
    const shelves = await Promise.all(Array.from({ length: 12 }, () => fixture.shelf(10)));
    const order = newId("order");
    await fixture.reserve(
      order,
      shelves.map((shelf) => shelf.units(2)),
    );
    await fixture.commit(order);
    const query = { referenceId: order, productId: undefined };
    const { changes: all } = await store.findChanges(query, ALL);
    assert.equal(all.length, 24);
    const paged: StockChange[] = [];
    for (;;) {
      const last = paged.at(-1);
      const { changes } = await store.findChanges(query, { limit: 5, after: last && positionOf(last) });
      if (changes.length === 0) {
        break;
      }
      paged.push(...changes);
      await fixture.return(order, newId("return"), [shelves[0]?.units(1) ?? assert.fail()]).catch(() => {});
    }
    assert.deepEqual(paged, all);
    assertNewestFirst(all);
  });

  it("more returns than the record names: the list says that it may lack some", async () => {
    const store = storeOf();
    const fixture = new ReservationFixture(store);
    const shelf = await fixture.shelf(500);
    const order = newId("order");
    await fixture.reserve(order, [shelf.units(500)]);
    await fixture.commit(order);
    const find = () => store.findChanges({ referenceId: order, productId: undefined }, ALL);
    for (let n = 0; n < RETURNS_NAMED_MAX - 3; n++) {
      await fixture.return(order, newId("return"), [shelf.units(1)]);
    }
    assert.equal((await find()).truncated, false);
    assert.equal((await find()).changes.length, RETURNS_NAMED_MAX - 1);
    for (let n = 0; n < 5; n++) {
      await fixture.return(order, newId("return"), [shelf.units(1)]);
    }
    assert.equal((await find()).truncated, true);
  });

  it("after the retention: nothing by the ID alone, and by product what its history has", async () => {
    await onStore(makeStore, { operationRetentionMs: 400 }, async (store) => {
      const fixture = new ReservationFixture(store);
      const shelf = await fixture.shelf(10);
      const { productId } = shelf;
      const [order, adjustmentId] = [newId("order"), newId("adjust")];
      await fixture.reserve(order, [shelf.units(2)]);
      await fixture.commit(order);
      await adjust(store, productId, 1, adjustmentId);
      const find = (referenceId: string, asked?: string) =>
        store.findChanges({ referenceId, productId: asked }, ALL);
      await until(
        async () => (await find(order)).changes.length + (await find(adjustmentId)).changes.length === 0,
        "the records have expired",
      );
      for (const id of [order, adjustmentId]) {
        assert.deepEqual(await find(id), { changes: [], truncated: true });
      }
      assert.deepEqual(stepsOf((await find(order, productId)).changes), [
        [productId, "committed", order],
        [productId, "reserved", order],
      ]);
      assert.deepEqual(stepsOf((await find(adjustmentId, productId)).changes), [
        [productId, "adjusted", adjustmentId],
      ]);
    });
  });
}

/** How many changes are kept, and what is said of the rest. */
export function lengthRules(makeStore: MakeStore): void {
  it("keeps as many changes as it is set to, and finds no others", async () => {
    await onStore(makeStore, { changesKept: 3 }, async (store) => {
      const fixture = new ReservationFixture(store);
      const shelf = await fixture.shelf(10);
      const order = newId("order");
      await fixture.reserve(order, [shelf.units(1)]);
      assert.deepEqual(await versionsOf(store, shelf.productId), [2, 1]);
      await fixture.commit(order);
      const find = (productId?: string) => store.findChanges({ referenceId: order, productId }, ALL);
      assert.equal((await find()).truncated, false);
      const first = newId("adjust");
      await adjust(store, shelf.productId, 1, first);
      assert.deepEqual(await versionsOf(store, shelf.productId), [4, 3, 2]);
      // Version 1 is gone; the first change of the order is not.
      assert.equal((await find()).truncated, false);
      assert.equal((await find(shelf.productId)).truncated, false);
      await adjust(store, shelf.productId, 1, newId("adjust"));
      for (const found of [await find(), await find(shelf.productId)]) {
        assert.deepEqual(stepsOf(found.changes), [[shelf.productId, "committed", order]]);
        assert.equal(found.truncated, true);
      }
      await adjust(store, shelf.productId, 1, newId("adjust"));
      await adjust(store, shelf.productId, 1, newId("adjust"));
      assert.deepEqual(await find(), { changes: [], truncated: true });
      assert.deepEqual(await store.findChanges({ referenceId: first, productId: undefined }, ALL), {
        changes: [],
        truncated: true,
      });
    });
  });

  it("keeps one change, and the versions continue", async () => {
    await onStore(makeStore, { changesKept: 1 }, async (store) => {
      const fixture = new ReservationFixture(store);
      const { productId } = await fixture.shelf(10);
      for (let n = 0; n < 5; n++) {
        await adjust(store, productId, 1, newId("adjust"));
      }
      await store.deleteProduct({ productId, updateTimeMicros: U + 1 });
      assert.deepEqual(await versionsOf(store, productId), [7]);
    });
  });

  it("finds the first change of a reservation in a history that is read in several parts", async () => {
    await onStore(makeStore, { changesKept: 1_200 }, async (store) => {
      const fixture = new ReservationFixture(store);
      const shelf = await fixture.shelf(10);
      const [order, later] = [newId("order"), newId("order")];
      await hasLapsed(await fixture.reserve(order, [shelf.units(1)], SOON_MS));
      await Promise.all(
        Array.from({ length: 1_000 }, () => adjust(store, shelf.productId, 1, newId("adjust"))),
      );
      await fixture.reserve(later, [shelf.units(1)]);
      const { changes, truncated } = await store.findChanges(
        { referenceId: order, productId: undefined },
        ALL,
      );
      assert.deepEqual(
        changes.map(({ cause }) => cause),
        ["reserved"],
      );
      assert.equal(truncated, false);
    });
  });
}

async function onStore(
  makeStore: MakeStore,
  settings: StoreSettings,
  body: (store: InventoryStore) => Promise<void>,
): Promise<void> {
  const { store, close } = await makeStore(settings);
  try {
    await body(store);
  } finally {
    await close();
  }
}

function adjust(store: InventoryStore, productId: string, delta: number, adjustmentId: string) {
  return store.adjustStock({ productId, delta, adjustmentId, reason: "" });
}

function count(store: InventoryStore, productId: string, units: number, countId: string) {
  return store.countStock({ productId, count: units, expectedVersion: undefined, countId, reason: "" });
}

function stepsOf(changes: readonly StockChange[]): string[][] {
  return changes.map(({ ledger, cause, referenceId }) => [ledger.productId, cause, referenceId]);
}

async function versionsOf(store: InventoryStore, productId: string): Promise<number[]> {
  const changes = await store.listChanges(productId, { limit: 100, beforeVersion: undefined });
  return changes.map(({ ledger }) => ledger.version);
}

function assertNewestFirst(changes: readonly StockChange[]): void {
  const times = changes.map(({ changeTimeMs }) => changeTimeMs);
  assert.deepEqual(
    times,
    times.toSorted((a, b) => b - a),
  );
}
