import { randomUUID } from "node:crypto";
import { Redis } from "ioredis";
import { pino } from "pino";
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
    return [
      {
        what: `Redis keeps of an ended reservation of ${LINES_PER_ORDER} lines, after ${ORDERS} orders`,
        unit: "bytes",
        here: [bytes],
      },
    ];
  } finally {
    client.disconnect();
    await store.close();
  }
};

async function usedMemory(client: Redis): Promise<number> {
  const info = await client.info("memory");
  return Number(/used_memory:(\d+)/.exec(info)?.[1]);
}

async function memoryOfStreams(client: Redis): Promise<number> {
  const streams = await client.keys("{b*}:changes");
  const sizes = await Promise.all(streams.map((key) => client.memory("USAGE", key, "SAMPLES", 0)));
  return sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0);
}
