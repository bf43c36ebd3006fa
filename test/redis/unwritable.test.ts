import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import { Redis } from "ioredis";
import { pino } from "pino";
import { InventoryError } from "../../server/inventory/errors.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { need } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";

const log = pino({ level: "silent" });

async function openStore(url: string): Promise<RedisStore & AsyncDisposable> {
  const store = new RedisStore({ endpoint: { url }, log });
  await store.start(5_000);
  return Object.assign(store, { [Symbol.asyncDispose]: () => store.close() });
}

/** A connection to change settings of Redis. */
function openOperator(t: TestContext, url: string): Redis {
  const operator = new Redis(url);
  t.after(() => operator.disconnect());
  return operator;
}

const isUnavailable = (error: unknown) =>
  error instanceof InventoryError && error.code === "STORE_UNAVAILABLE";

describe("RedisStore while Redis refuses writes", { skip: need("redis-server").missing }, () => {
  it("disconnects from a primary that became a replica, and recovers when there is a primary", async (t) => {
    await using redis = await startRedis();
    await using store = await openStore(redis.url);
    await store.putProduct({ productId: "r", details: undefined, declared: 10, updateTimeMicros: 1 });
    const lines = [{ productId: "r", quantity: 1 }];
    const request = { reservationId: "r-1", lines, ttlMs: 60_000 };
    await store.reservations.reserve(request);

    const operator = openOperator(t, redis.url);
    await operator.replicaof("127.0.0.1", redis.port);
    await assert.rejects(store.reservations.reserve(request), isUnavailable, "a repetition is refused too");
    await until(
      async () => /replica/.test((await store.unreadyReason()) ?? ""),
      "the reason says that it is a replica",
    );
    await operator.replicaof("NO", "ONE");
    await until(async () => (await store.unreadyReason()) === undefined, "the store is ready again");
    assert.equal((await store.reservations.reserve(request)).state, "active");
    assert.equal((await store.getLedger("r")).reserved, 1);
  });

  it("starts and reads while the memory of Redis is full, and writes nothing until it has room", async (t) => {
    await using redis = await startRedis();
    await using store = await openStore(redis.url);
    await store.putProduct({ productId: "m", details: undefined, declared: 10, updateTimeMicros: 1 });
    const request = { reservationId: "m-1", lines: [{ productId: "m", quantity: 1 }], ttlMs: 60_000 };
    await store.reservations.reserve(request);
    const before = await store.getLedger("m");

    const operator = openOperator(t, redis.url);
    await operator.config("SET", "maxmemory", "1mb");
    await using started = await openStore(redis.url);
    await until(async () => /OOM/.test((await started.unreadyReason()) ?? ""), "the reason is OOM");
    const commit = { reservationId: "m-1", lines: undefined, strict: false };
    for (const each of [store, started]) {
      assert.deepEqual(await each.getLedger("m"), before);
      await assert.rejects(each.reservations.commit(commit), isUnavailable);
    }
    assert.deepEqual(await store.getLedger("m"), before);
    await operator.config("SET", "maxmemory", "0");
    await until(async () => (await started.unreadyReason()) === undefined, "the store is ready again");
    assert.equal((await started.reservations.commit(commit)).state, "committed");
  });
});
