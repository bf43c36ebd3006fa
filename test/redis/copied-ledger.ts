import assert from "node:assert/strict";
import type { Redis } from "ioredis";
import { pino } from "pino";
import { InventoryError } from "../../server/inventory/errors.ts";
import type { InventoryStore } from "../../server/inventory/store.ts";
import { parseOperation } from "../../server/redis/copy/ledger-keys.ts";
import { BUCKETS_DEFAULT, Keys } from "../../server/redis/keys.ts";
import { RedisOutbox } from "../../server/redis/outbox.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { until } from "../support/until.ts";

const log = pino({ level: "silent" });
export const HOUR_MS = 3_600_000;
const U = 1_700_000_000_123_456;

const PRODUCTS = Array.from({ length: 40 }, (_, n) => (n % 7 === 0 ? `sku:${n}%3A` : `sku-${n}`));
const LAMP = { name: "Lamp", description: "Wärm\n", price: 19.99, collectionId: "light" };
export const productAt = (n: number): string => PRODUCTS[n] ?? "";
export const order = (state: string, n: number): string => `order:${state}-${n}`;

export async function openStore(url: string, buckets: number): Promise<RedisStore> {
  const store = new RedisStore({ endpoint: { url }, log, keys: new Keys(buckets) });
  await store.start(5_000);
  return store;
}

/** Reservations in every state, corrections, returns, a deleted product and collections. */
export async function fill(store: InventoryStore): Promise<void> {
  const { reservations } = store;
  const lines = (n: number) => [
    { productId: productAt(n), quantity: 2 },
    { productId: productAt(n + 1), quantity: 1 },
  ];
  for (const [n, productId] of PRODUCTS.entries()) {
    const details = n % 2 === 0 ? LAMP : undefined;
    await store.putProduct({ productId, declared: 100 + n, details, updateTimeMicros: U });
    await store.adjustStock({ productId, delta: 5, adjustmentId: "delivery:1", reason: "dock" });
    await store.setSafetyStock(productId, n % 3);
  }
  for (let n = 0; n < 10; n++) {
    const count = { productId: productAt(n), reason: "yearly", expectedVersion: undefined };
    await store.adjustStock({ productId: productAt(n), delta: 1, adjustmentId: `found-${n}`, reason: "" });
    await store.countStock({ ...count, count: 90, countId: `count-${n}` });
    await store.countStock({ ...count, count: 90, countId: `same-${n}` });
    for (const state of ["active", "committed", "released", "expired", "returned"]) {
      await reservations.reserve({
        reservationId: order(state, n),
        lines: lines(n),
        ttlMs: state === "expired" ? 0 : HOUR_MS,
      });
    }
    await reservations.commit({ reservationId: order("committed", n), lines: undefined, strict: false });
    await reservations.commit({ reservationId: order("returned", n), lines: undefined, strict: false });
    await reservations.return({
      reservationId: order("returned", n),
      returnId: `back:${n}`,
      lines: lines(n),
    });
    await reservations.release(order("released", n));
  }
  await reservations.release("tombstone");
  await store.deleteProduct({ productId: productAt(39), updateTimeMicros: U + 1 });
  for (const collectionId of ["light", "dark"]) {
    await store.putCollection({
      collectionId,
      collection: { collectionId, name: collectionId, description: "" },
      updateTimeMicros: U,
    });
  }
  await until(async () => {
    await reservations.expireDue(100);
    return (await reservations.get(order("expired", 9))).state === "expired";
  }, "the reservations have expired");
}

/** Moves the cursor of each bucket to the end, as a publisher does. */
export async function publishAll(url: string): Promise<void> {
  const outbox = new RedisOutbox({ endpoint: { url }, keys: new Keys(BUCKETS_DEFAULT), log });
  try {
    for (let bucket = 0; bucket < outbox.buckets; bucket++) {
      const lease = await until(
        () => outbox.acquire(bucket, "test", HOUR_MS).catch(() => undefined),
        "the outbox is connected",
      );
      for (;;) {
        const { entries = [] } = (await outbox.read(lease, 500)) ?? {};
        if (entries.length === 0) break;
        await outbox.advance(lease, entries);
      }
      await outbox.release(lease);
    }
  } finally {
    await outbox.close();
  }
}

/** Gives the operations the keys of layout 2, which have no owner and are in the bucket of their ID. */
export async function toLayoutTwo(client: Redis): Promise<void> {
  const keys = new Keys(BUCKETS_DEFAULT);
  for (const key of await client.keys("{b*}:op:*")) {
    const operation = parseOperation(key.replace(/^\{b\d+\}:op:/, ""), 3);
    assert.ok(operation !== undefined);
    const { kind, id } = operation;
    const tag = keys.changes(keys.bucketOf(id)).replace(/:changes$/, "");
    await client.rename(key, `${tag}:op:${kind}:${id}`);
  }
  await client.hset("{b00}:layout", "version", "2");
  await client.hdel("{b00}:layout", "marked");
}

/** What callers see. */
export async function observe(store: InventoryStore): Promise<unknown> {
  const { reservations } = store;
  const ids = ["active", "committed", "released", "expired", "returned"].flatMap((state) =>
    Array.from({ length: 10 }, (_, n) => order(state, n)),
  );
  const references = [...ids, "delivery:1", "count-3", "same-3", "back:4"];
  return {
    ledgers: await Promise.all(PRODUCTS.map((id) => store.getLedger(id))),
    stocks: await store.batchGetStock(PRODUCTS),
    changes: await Promise.all(
      PRODUCTS.map((id) => store.listChanges(id, { limit: 1_000, beforeVersion: undefined })),
    ),
    reservations: await Promise.all(["tombstone", ...ids].map((id) => reservations.get(id))),
    active: await reservations.list({ limit: 100, after: undefined, expireBeforeMs: undefined }),
    collections: (await store.listCollections()).toSorted((a, b) => (a.name < b.name ? -1 : 1)),
    references: await Promise.all(
      references.map((referenceId) =>
        store.findChanges({ referenceId, productId: undefined }, { limit: 1_000, after: undefined }),
      ),
    ),
  };
}

/** Repetitions are recognised, and reservations end. */
export async function goesOn(store: InventoryStore, layout: number): Promise<void> {
  const { reservations } = store;
  const isReused = (error: unknown) => error instanceof InventoryError && error.code === "ID_REUSED";
  const version = async (n: number) => (await store.getLedger(productAt(n))).version;
  const productId = productAt(7);
  const known = await version(7);
  const adjust = { productId, delta: 5, adjustmentId: "delivery:1", reason: "dock" };
  const count = { productId, count: 90, countId: "count-7", reason: "yearly", expectedVersion: undefined };
  const lines = [productAt(7), productAt(8)].map((id, index) => ({ productId: id, quantity: 2 - index }));
  if (layout === 3) {
    await store.adjustStock(adjust);
    await assert.rejects(store.adjustStock({ ...adjust, delta: 6 }), isReused);
    await assert.rejects(store.countStock({ ...count, countId: "same-7", count: 91 }), isReused);
  }
  await store.adjustStock({ productId, delta: 1, adjustmentId: "found-7", reason: "" });
  await store.countStock(count);
  await assert.rejects(store.countStock({ ...count, count: 91 }), isReused);
  await reservations.return({ reservationId: order("returned", 7), returnId: "back:7", lines });
  await reservations.reserve({ reservationId: order("active", 7), lines, ttlMs: HOUR_MS });
  assert.equal(await version(7), known, "repetitions change nothing");
  await reservations.commit({ reservationId: order("active", 7), lines: undefined, strict: true });
  await reservations.release(order("active", 8));
  await reservations.return({ reservationId: order("committed", 7), returnId: "late", lines });
  assert.equal(await version(7), known + 2);
  const held = await reservations.list({ limit: 100, after: undefined, expireBeforeMs: undefined });
  assert.equal(held.length, 8);
}
