import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Redis } from "ioredis";
import { pino } from "pino";
import { BUCKETS_DEFAULT, Keys } from "../../server/redis/keys.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";

const OTHERS = 10_500;
const PAGE = { limit: 100, after: undefined, expireBeforeMs: undefined };

describe("reservations of a product among many", { skip: need("redis-server").missing }, () => {
  const keys = new Keys(BUCKETS_DEFAULT);
  let redis: RedisServer;
  let client: Redis;
  let store: RedisStore;
  before(async () => {
    redis = await startRedis();
    client = new Redis(redis.url);
    store = new RedisStore({ endpoint: { url: redis.url }, log: pino({ level: "silent" }), keys });
    await store.start(5_000);
  });
  after(async () => {
    await store?.close();
    client?.disconnect();
    await redis?.stop();
  });

  it("are found by a later page if 10,000 of other products expire earlier", async () => {
    for (const productId of ["common", "rare"]) {
      await store.putProduct({ productId, details: undefined, declared: 10, updateTimeMicros: 1 });
    }
    const reserve = (reservationId: string, productId: string, ttlMs: number) =>
      store.reservations.reserve({ reservationId, lines: [{ productId, quantity: 1 }], ttlMs });
    const common = await reserve("common-order", "common", 60_000);
    const rare = await reserve("rare-order", "rare", 120_000);
    // Copies of one record: reserving as many would take long.
    const record = (await client.get(keys.reservation("common-order"))) ?? "";
    const copies = client.pipeline();
    for (let n = 0; n < OTHERS; n++) {
      const id = `copy-${n}`;
      copies.set(keys.reservation(id), record);
      copies.zadd(keys.deadlines(keys.bucketOf(id)), common.expireTimeMs ?? 0, id);
    }
    await copies.exec();

    const first = await store.reservations.listOfProduct("rare", PAGE);
    assert.deepEqual(first.reservations, []);
    assert.ok(first.next !== undefined, "10,000 are examined, and the list goes on");
    const second = await store.reservations.listOfProduct("rare", { ...PAGE, after: first.next });
    assert.deepEqual(second, { reservations: [rare], next: undefined });
  });
});
