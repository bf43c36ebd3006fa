import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Redis } from "ioredis";
import { pino } from "pino";
import { BUCKETS_DEFAULT, Keys } from "../../server/redis/keys.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";

const keys = new Keys(BUCKETS_DEFAULT);
const TTL_MS = 600_000;

/** Operations that are called in the same turn of the event loop share a batch. */
describe("operations of one batch on the same product", { skip: need("redis-server").missing }, () => {
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
    await store.close();
    client.disconnect();
    await redis.stop();
  });

  const put = (productId: string, declared: number, updateTimeMicros = 1) =>
    store.putProduct({ productId, declared, details: undefined, updateTimeMicros });
  const reserve = (reservationId: string, ...lines: [productId: string, quantity: number][]) =>
    store.reservations.reserve({
      reservationId,
      lines: lines.map(([productId, quantity]) => ({ productId, quantity })),
      ttlMs: TTL_MS,
    });
  /** Number of script calls and of HSETs of ledgers while `run` runs. */
  const counting = async (run: () => Promise<unknown>): Promise<{ batches: number; hset: number }> => {
    await client.config("RESETSTAT");
    await run();
    const calls = (name: string, stats: string): number =>
      Number(new RegExp(`cmdstat_${name}:calls=(\\d+)`).exec(stats)?.[1] ?? 0);
    const stats = await client.info("commandstats");
    return { batches: calls("evalsha", stats), hset: calls("hset", stats) };
  };

  it("see each other's changes, and share one write of the ledger", async () => {
    await put("hot", 10);
    const outcomes: PromiseSettledResult<unknown>[] = [];
    const { batches, hset } = await counting(async () => {
      outcomes.push(
        ...(await Promise.allSettled([
          ...Array.from({ length: 6 }, (_, n) => reserve(`hot-${n}`, ["hot", 2])),
          store.reservations.release("hot-0"),
          reserve("hot-6", ["hot", 2]),
          store.adjustStock({ productId: "hot", delta: -1, adjustmentId: "hot", reason: "" }),
          store.reservations.commit({ reservationId: "hot-1", lines: undefined, strict: false }),
        ])),
      );
    });
    assert.equal(batches, 1, "one batch");
    assert.equal(hset, 1);
    assert.deepEqual(
      outcomes.map(({ status }) => status === "fulfilled"),
      // The sixth finds nothing left; the release makes room for the seventh.
      [true, true, true, true, true, false, true, true, true, true],
    );
    const ledger = await store.getLedger("hot");
    assert.partialDeepStrictEqual(ledger, { declared: 10, adjusted: -1, sold: 2, reserved: 8, version: 10 });
    const changes = await store.listChanges("hot", { limit: 100, beforeVersion: undefined });
    assert.deepEqual(
      changes.map(({ ledger: { version, reserved, sold, adjusted } }) => [version, reserved, sold, adjusted]),
      [
        [10, 8, 2, -1],
        [9, 10, 0, -1],
        [8, 10, 0, 0],
        [7, 8, 0, 0],
        [6, 10, 0, 0],
        [5, 8, 0, 0],
        [4, 6, 0, 0],
        [3, 4, 0, 0],
        [2, 2, 0, 0],
        [1, 0, 0, 0],
      ],
    );
  });

  it("do not see what an operation that ended with an error had changed", async () => {
    await put("sound", 10);
    await put("broken", 10);
    await reserve("both", ["sound", 5], ["broken", 1]);
    await client.hset(keys.ledger("broken"), "H", "many");
    const outcomes = await Promise.allSettled([
      // Gives back the first line, and then finds that the second one is damaged.
      store.reservations.release("both"),
      reserve("next", ["sound", 1]),
    ]);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      ["rejected", "fulfilled"],
    );
    assert.partialDeepStrictEqual(await store.getLedger("sound"), { reserved: 6, version: 3 });
    const changes = await store.listChanges("sound", { limit: 100, beforeVersion: undefined });
    assert.deepEqual(
      changes.map(({ cause, delta }) => [cause, delta]),
      [
        ["reserved", -1],
        ["reserved", -5],
        ["declared", 10],
      ],
    );
  });

  it("compare a repeated event with the delivery that the batch has just stored", async () => {
    const event = (offset: number, declared: number) =>
      store.putProduct({
        productId: "delivered",
        declared,
        details: undefined,
        updateTimeMicros: 5,
        delivery: { timestampMs: 1, offset, partition: 0 },
      });
    const results = await Promise.all([event(7, 3), event(7, 3), event(6, 4), event(8, 5)]);
    assert.deepEqual(
      results.map(({ applied, changed }) => [applied, changed]),
      [
        [true, true],
        [true, false],
        [false, false],
        [true, true],
      ],
    );
    assert.equal((await store.getLedger("delivered")).declared, 5);
  });
});
