import { randomUUID } from "node:crypto";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Redis } from "ioredis";
import { pino } from "pino";
import { CHANGES_KEPT_DEFAULT } from "../../server/inventory/change-history.ts";
import type { InventoryStore } from "../../server/inventory/store.ts";
import { MemoryStore } from "../../server/memory/store.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { startRedis } from "../support/redis-server.ts";
import type { Bench } from "./bench-context.ts";
import { inParallel } from "./in-parallel.ts";

const ORDERS = 100_000;
const PRODUCTS = 1_000;
const LINES_PER_ORDER = 2;
const IN_FLIGHT = 256;
/** An order makes two changes of each product: after 50 orders a history has its maximum of 100 changes. */
const WARM_UP_ORDERS_PER_PRODUCT = 50;

/**
 * Memory in Redis for a day's orders: ended reservations are kept for their retention. Histories and change
 * streams are filled to their limits before the measurement.
 */
export const measureReservationMemory: Bench = async ({ note }) => {
  await using redis = await startRedis({ appendfsync: "everysec" });
  const store = new RedisStore({ endpoint: { url: redis.url }, log: pino({ level: "silent" }) });
  const client = new Redis(redis.url);
  try {
    await store.start(5_000);
    const products = Array.from({ length: PRODUCTS }, () => randomUUID());
    await Promise.all(
      products.map((productId) =>
        store.putProduct({ productId, details: undefined, declared: 2_000_000_000, updateTimeMicros: 1 }),
      ),
    );
    const buy = async (n: number): Promise<void> => {
      const reservationId = randomUUID();
      const lines = Array.from({ length: LINES_PER_ORDER }, (_, line) => ({
        productId: products[(n * LINES_PER_ORDER + line) % PRODUCTS] ?? "",
        quantity: 1,
      }));
      await store.reservations.reserve({ reservationId, lines, ttlMs: 60_000 });
      await store.reservations.commit({ reservationId, lines: undefined, strict: false });
    };

    await inParallel(PRODUCTS * WARM_UP_ORDERS_PER_PRODUCT, IN_FLIGHT, buy);
    const before = await usedMemory(client);
    const streamsBefore = await memoryOfStreams(client);
    await inParallel(ORDERS, IN_FLIGHT, buy);
    const streams = (await memoryOfStreams(client)) - streamsBefore;
    const bytes = ((await usedMemory(client)) - before - streams) / ORDERS;
    note(
      `${Math.round((bytes * 1_000_000) / 1024 ** 2)} MiB for 1,000,000 orders a day and a retention of 24 hours`,
    );
    note(
      `${Math.round(streams / 1024 ** 2)} MiB more in the change streams, which end at 100,000 changes a bucket`,
    );
    const kept = await bytesPerChange(store, client);
    return [
      {
        what: `Redis keeps of an ended reservation of ${LINES_PER_ORDER} lines, after ${ORDERS} orders`,
        unit: "bytes",
        here: [bytes],
        target: { atMost: 400 },
      },
      {
        what: "Redis keeps of a change of a product, of 100 kept",
        unit: "bytes",
        here: [kept],
        target: { atMost: 200 },
      },
      {
        what: "the embedded store keeps of a change of a product, of 100 kept",
        unit: "bytes",
        here: [await bytesPerChangeInMemory()],
        target: { atMost: 300 },
      },
    ];
  } finally {
    client.disconnect();
    await store.close();
  }
};

/** The history of one product, after orders with UUIDs by the caller `orders`. */
async function bytesPerChange(store: InventoryStore, client: Redis): Promise<number> {
  const productId = randomUUID();
  await fillHistory(store, productId);
  const [key = ""] = await client.keys(`{b*}:h:${productId}`);
  return Number(await client.memory("USAGE", key, "SAMPLES", 0)) / CHANGES_KEPT_DEFAULT;
}

async function bytesPerChangeInMemory(): Promise<number> {
  setFlagsFromString("--expose-gc");
  const collect: () => void = runInNewContext("gc");
  const heapOf = async (changesKept: number): Promise<number> => {
    // Kept for a millisecond, so that the records of operations do not count.
    const store = new MemoryStore({ changesKept, operationRetentionMs: 1 });
    for (let n = 0; n < PRODUCTS; n++) {
      await fillHistory(store, randomUUID());
    }
    collect();
    const { heapUsed } = process.memoryUsage();
    // Keeps the store alive until here.
    await store.close();
    return heapUsed;
  };
  const short = await heapOf(1);
  collect();
  return ((await heapOf(CHANGES_KEPT_DEFAULT)) - short) / (PRODUCTS * (CHANGES_KEPT_DEFAULT - 1));
}

async function fillHistory(store: InventoryStore, productId: string): Promise<void> {
  await store.putProduct({ productId, details: undefined, declared: 1_000_000, updateTimeMicros: 1 });
  for (let n = 0; n < CHANGES_KEPT_DEFAULT / 2; n++) {
    const reservationId = randomUUID();
    const lines = [{ productId, quantity: 1 }];
    await store.reservations.reserve({ reservationId, lines, ttlMs: 60_000, actor: "orders" });
    await store.reservations.commit({ reservationId, lines: undefined, strict: false, actor: "orders" });
  }
}

async function usedMemory(client: Redis): Promise<number> {
  const info = await client.info("memory");
  return Number(/used_memory:(\d+)/.exec(info)?.[1]);
}

async function memoryOfStreams(client: Redis): Promise<number> {
  const streams = await client.keys("{b*}:changes");
  const sizes = await Promise.all(streams.map((key) => client.memory("USAGE", key, "SAMPLES", 0)));
  return sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0);
}
