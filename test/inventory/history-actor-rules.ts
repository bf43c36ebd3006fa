import assert from "node:assert/strict";
import { it } from "node:test";
import type { InventoryStore } from "../../server/inventory/store.ts";
import { HOUR_MS, hasLapsed, newId, ReservationFixture, SOON_MS, U } from "./reservation-fixture.ts";

/** Who is recorded as causing a change. */
export function actorRules(storeOf: () => InventoryStore): void {
  it("each kind of change has the actor of the call that made it", async () => {
    const store = storeOf();
    const { reservations } = store;
    const productId = newId("p");
    const [order, returnId, given] = [newId("order"), newId("return"), newId("order")];
    const lines = [{ productId, quantity: 2 }];
    const event = { productId, details: undefined, declared: 9, updateTimeMicros: U };
    await store.putProduct({ ...event, actor: "kafka:product" });
    const count = { productId, count: 8, expectedVersion: undefined, countId: newId("count"), reason: "" };
    await store.countStock({ ...count, actor: "counter" });
    await store.adjustStock({
      productId,
      delta: 4,
      adjustmentId: newId("adjust"),
      reason: "found\nhere",
      actor: "auth0|Zoë Smith",
    });
    await store.setSafetyStock(productId, 1, "operator");
    await reservations.reserve({ reservationId: order, lines, ttlMs: HOUR_MS, actor: "orders-1" });
    const commit = { reservationId: order, lines: undefined, strict: false };
    await reservations.commit({ ...commit, actor: "orders-2" });
    await reservations.return({ reservationId: order, returnId, lines, actor: "desk" });
    await reservations.reserve({ reservationId: given, lines, ttlMs: HOUR_MS, actor: "orders-1" });
    await reservations.release(given, "orders-3");
    await store.deleteProduct({ productId, updateTimeMicros: U + 1, actor: "seller" });
    assert.deepEqual(await recorded(store, productId), [
      ["declared", "kafka:product"],
      ["counted", "counter"],
      ["adjusted", "auth0|Zoë Smith"],
      ["safety", "operator"],
      ["reserved", "orders-1"],
      ["committed", "orders-2"],
      ["returned", "desk"],
      ["reserved", "orders-1"],
      ["released", "orders-3"],
      ["deleted", "seller"],
    ]);
    const [adjusted] = (await changesOf(store, productId)).filter(({ cause }) => cause === "adjusted");
    assert.equal(adjusted?.reason, "found\nhere");
  });

  it("a change without an actor has an empty one", async () => {
    const store = storeOf();
    const productId = newId("p");
    await store.putProduct({ productId, details: undefined, declared: 9, updateTimeMicros: U });
    await store.setSafetyStock(productId, 1);
    assert.deepEqual(await recorded(store, productId), [
      ["declared", ""],
      ["safety", ""],
    ]);
  });

  it("a repetition by another caller keeps the first actor", async () => {
    const store = storeOf();
    const { reservations } = store;
    const productId = newId("p");
    const [reservationId, returnId] = [newId("order"), newId("return")];
    const lines = [{ productId, quantity: 1 }];
    const adjustment = { productId, delta: 2, adjustmentId: newId("adjust"), reason: "" };
    const count = { productId, count: 3, expectedVersion: undefined, countId: newId("count"), reason: "" };
    const event = { productId, details: undefined, declared: 9, updateTimeMicros: U };
    for (const actor of ["first", "second"]) {
      await store.putProduct({ ...event, actor });
      await store.adjustStock({ ...adjustment, actor });
      await store.countStock({ ...count, actor });
    }
    for (const actor of ["first", "second"]) {
      await reservations.reserve({ reservationId, lines, ttlMs: HOUR_MS, actor });
    }
    for (const actor of ["first", "second"]) {
      await reservations.commit({ reservationId, lines: undefined, strict: false, actor });
    }
    for (const actor of ["first", "second"]) {
      await reservations.return({ reservationId, returnId, lines, actor });
    }
    assert.deepEqual(
      (await recorded(store, productId)).map(([, actor]) => actor),
      ["first", "first", "first", "first", "first", "first"],
    );
  });

  it("an expiry is the system's, also among the calls of others; a late commit is its caller's", async () => {
    const store = storeOf();
    const fixture = new ReservationFixture(store);
    const { productId } = await fixture.shelf(10);
    const lines = [{ productId, quantity: 1 }];
    const reservationId = newId("order");
    await hasLapsed(
      await store.reservations.reserve({ reservationId, lines, ttlMs: SOON_MS, actor: "orders" }),
    );
    // Calls of the same turn of the event loop share batches.
    const callers = Array.from({ length: 20 }, (_, n) => newId(`caller${n}`));
    const adjustAs = (actor: string) =>
      store.adjustStock({ productId, delta: 1, adjustmentId: actor, reason: "", actor });
    await Promise.all([
      ...callers.slice(10).map(adjustAs),
      fixture.sweep(),
      ...callers.slice(0, 10).map(adjustAs),
    ]);
    await store.reservations.commit({ reservationId, lines: undefined, strict: false, actor: "late" });
    const changes = await changesOf(store, productId);
    assert.deepEqual(
      changes
        .filter(({ referenceId }) => referenceId === reservationId)
        .map(({ cause, actor }) => [cause, actor]),
      [
        ["reserved", "orders"],
        ["expired", "system:expiry"],
        ["reserved", "late"],
        ["committed", "late"],
      ],
    );
    const adjusted = changes.filter(({ cause }) => cause === "adjusted");
    assert.deepEqual(
      adjusted.map(({ actor }) => actor),
      adjusted.map(({ referenceId }) => referenceId),
    );
    assert.equal(adjusted.length, callers.length);
  });
}

/** Oldest first. */
async function changesOf(store: InventoryStore, productId: string) {
  return (await store.listChanges(productId, { limit: 100, beforeVersion: undefined })).toReversed();
}

async function recorded(store: InventoryStore, productId: string): Promise<[string, string][]> {
  return (await changesOf(store, productId)).map(({ cause, actor }) => [cause, actor]);
}
