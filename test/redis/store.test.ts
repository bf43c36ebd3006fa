import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { Redis } from "ioredis";
import { pino } from "pino";
import { InventoryError } from "../../server/inventory/errors.ts";
import { RedisRequirementError } from "../../server/redis/connection/client.ts";
import { durabilityWarnings } from "../../server/redis/connection/durability.ts";
import { BUCKETS_MAX, Keys } from "../../server/redis/keys.ts";
import { decodeChange } from "../../server/redis/reply.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { describeBulkContract } from "../inventory/bulk-contract.ts";
import { describeHistoryContract } from "../inventory/history-contract.ts";
import { describeReservationContract } from "../inventory/reservation-contract.ts";
import { describeStoreContract, type StoreSettings } from "../inventory/store-contract.ts";
import { describeStoresAgree } from "../inventory/stores-agree.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";

const skip = need("redis-server").missing;
const log = pino({ level: "silent" });

/** Maximum duration of a call while Redis is down, with a margin for a busy machine. */
const REFUSED_MS_MAX = 5_000;

async function openStore(url: string, settings: StoreSettings = {}): Promise<RedisStore> {
  const store = new RedisStore({ endpoint: { url }, log, ...settings });
  await store.start(5_000);
  return store;
}

async function storeOnOwnRedis(settings: StoreSettings = {}) {
  const redis = await startRedis();
  const store = await openStore(redis.url, settings);
  return {
    store,
    close: async () => {
      await store.close();
      await redis.stop();
    },
  };
}

describeStoreContract("RedisStore", storeOnOwnRedis, { skip: skip || undefined });
describeReservationContract("RedisStore", storeOnOwnRedis, { skip: skip || undefined });
describeBulkContract("RedisStore", storeOnOwnRedis, { skip: skip || undefined });
describeHistoryContract("RedisStore", storeOnOwnRedis, { skip: skip || undefined });
describeStoresAgree("RedisStore", storeOnOwnRedis, { skip: skip || undefined });

const hasCode = (code: string) => (error: unknown) => error instanceof InventoryError && error.code === code;

describe("RedisStore", { skip }, () => {
  let redis: RedisServer;
  let client: Redis;
  before(async () => {
    redis = await startRedis();
    client = new Redis(redis.url);
  });
  after(async () => {
    client?.disconnect();
    await redis?.stop();
  });

  describe("adopts plain keys of the Go service", () => {
    it("at the first read, as D with U = 0", async () => {
      await using store = disposable(await openStore(redis.url));
      await client.set("p1", "5");
      assert.equal((await store.getStock("p1")).available, 5);
      const ledger = await store.getLedger("p1");
      assert.equal(ledger.declared, 5);
      assert.equal(ledger.declareTimeMicros, 0);
      assert.equal(ledger.version, 1);
      assert.equal(
        await client.get("p1"),
        "5",
        "the plain key is kept, so that a rollback to the Go service is possible",
      );
    });

    it("at the first correction", async () => {
      await using store = disposable(await openStore(redis.url));
      await client.set("p2", "7");
      const ledger = await store.adjustStock({
        productId: "p2",
        delta: -2,
        adjustmentId: "a2",
        reason: "",
        actor: "clerk",
      });
      assert.equal(ledger.declared, 7);
      assert.equal(ledger.adjusted, -2);
      const changes = await store.listChanges("p2", { limit: 10, beforeVersion: undefined });
      assert.deepEqual(
        changes.map(({ cause, actor }) => [cause, actor]),
        [
          ["adjusted", "clerk"],
          ["declared", "system:adopt"],
        ],
      );
    });

    it("before an event without a stock count; an event with one supersedes it", async () => {
      await using store = disposable(await openStore(redis.url));
      await client.set("p3", "9");
      const details = { name: "N", description: "", price: 1, collectionId: "" };
      const put = { productId: "p3", details, declared: undefined, updateTimeMicros: 1_600_000_000_000_000 };
      assert.equal((await store.putProduct(put)).ledger.declared, 9);
      assert.equal((await store.putProduct({ ...put, declared: 4 })).ledger.declared, 4);
    });

    it("once, by whatever calls of several servers come first", async () => {
      await using one = disposable(await openStore(redis.url));
      await using other = disposable(await openStore(redis.url));
      const put = { details: undefined, declared: undefined, updateTimeMicros: 1_600_000_000_000_000 };
      const calls: ((store: RedisStore, productId: string) => Promise<unknown>)[] = [
        (store, productId) => store.getStock(productId),
        (store, productId) => store.putProduct({ productId, ...put }),
        (store, productId) => store.setSafetyStock(productId, 1),
        (store, productId) =>
          store.reservations.reserve({
            reservationId: randomUUID(),
            lines: [{ productId, quantity: 1 }],
            ttlMs: 60_000,
          }),
      ];
      const productIds = Array.from({ length: 20 }, () => `raced-${randomUUID()}`);
      await client.mset(Object.fromEntries(productIds.map((id) => [id, "5"])));
      await Promise.all(
        productIds.flatMap((id) => [one, other].flatMap((store) => calls.map((call) => call(store, id)))),
      );
      for (const productId of productIds) {
        const changes = await one.listChanges(productId, { limit: 100, beforeVersion: undefined });
        const adoptions = changes.filter(({ actor }) => actor === "system:adopt");
        assert.deepEqual(
          adoptions.map(({ ledger }) => [ledger.version, ledger.declared]),
          [[1, 5]],
        );
        const { declared, reserved } = await one.getLedger(productId);
        assert.deepEqual([declared, reserved], [5, 2]);
      }
    });

    for (const text of ["", "x5", "-1", "1.5", " 5", "2147483648", "99999999999"]) {
      it(`not if the value is ${JSON.stringify(text)}`, async () => {
        await using store = disposable(await openStore(redis.url));
        const productId = `no-count-${randomUUID()}`;
        await client.set(productId, text);
        await assert.rejects(store.getStock(productId), hasCode("PRODUCT_UNKNOWN"));
        await assert.rejects(store.setSafetyStock(productId, 1), hasCode("PRODUCT_UNKNOWN"));
      });
    }

    it("not if the key is not a string, and not for a deleted product", async () => {
      await using store = disposable(await openStore(redis.url));
      await client.hset("a-hash", "x", "5");
      await assert.rejects(store.getStock("a-hash"), hasCode("PRODUCT_UNKNOWN"));
      await client.set("p4", "5");
      await store.deleteProduct({ productId: "p4", updateTimeMicros: 1_600_000_000_000_000 });
      await assert.rejects(store.getStock("p4"), hasCode("PRODUCT_UNKNOWN"));
    });
  });

  it("records each change in the same step: the change stream has every version", async () => {
    await using store = disposable(await openStore(redis.url));
    const productId = `recorded-${randomUUID()}`;
    await store.putProduct({ productId, details: undefined, declared: 10, updateTimeMicros: 1 });
    await Promise.all(
      Array.from({ length: 50 }, (_, n) =>
        store.adjustStock({ productId, delta: n % 2 ? 1 : -1, adjustmentId: randomUUID(), reason: "" }),
      ),
    );
    const streams = await client.keys("{b*}:changes");
    const entries = (await Promise.all(streams.map((key) => client.xrange(key, "-", "+")))).flat();
    const ofProduct = entries.map(decodeChange).filter(({ ledger }) => ledger.productId === productId);
    const versions = ofProduct.map(({ ledger }) => ledger.version);
    assert.deepEqual(
      versions,
      Array.from({ length: 51 }, (_, n) => n + 1),
    );
  });

  it("continues to expire, and runs the rest of the batch, after a record was deleted by hand", async () => {
    await using store = disposable(await openStore(redis.url));
    const productId = `by-hand-${randomUUID()}`;
    await store.putProduct({ productId, details: undefined, declared: 10, updateTimeMicros: 1 });
    const lines = [{ productId, quantity: 1 }];
    for (const name of ["deleted", "kept"]) {
      await store.reservations.reserve({ reservationId: `${name}-${productId}`, lines, ttlMs: 1 });
    }
    await client.del(...(await client.keys(`*:r:deleted-${productId}`)));
    await until(async () => {
      const [, ledger] = await Promise.all([
        store.reservations.expireDue(10),
        store.setSafetyStock(productId, 0),
      ]);
      return ledger.reserved === 1;
    }, "the other reservation has expired");
  });

  it("leaves no operation half done, and continues to expire, after a ledger was deleted by hand", async () => {
    await using store = disposable(await openStore(redis.url));
    const { reservations } = store;
    const [kept, deleted] = [`kept-${randomUUID()}`, `deleted-${randomUUID()}`];
    for (const productId of [kept, deleted]) {
      await store.putProduct({ productId, details: undefined, declared: 10, updateTimeMicros: 1 });
    }
    const lines = [
      { productId: kept, quantity: 1 },
      { productId: deleted, quantity: 1 },
    ];
    const idOf = (name: string) => `${name}-${kept}`;
    for (const name of ["sold", "commits", "released"]) {
      await reservations.reserve({ reservationId: idOf(name), lines, ttlMs: 3_600_000 });
    }
    await reservations.commit({ reservationId: idOf("sold"), lines: undefined, strict: false });
    await reservations.reserve({ reservationId: idOf("due"), lines, ttlMs: 0 });
    await client.del(...(await client.keys(`*:p:${deleted}`)));

    const before = await store.getLedger(kept);
    const commit = { reservationId: idOf("commits"), lines: undefined, strict: false };
    await assert.rejects(reservations.commit(commit), hasCode("RECORD_DAMAGED"));
    const goods = { reservationId: idOf("sold"), returnId: idOf("return"), lines };
    await assert.rejects(reservations.return(goods), hasCode("RECORD_DAMAGED"));
    await assert.rejects(
      reservations.return(goods),
      hasCode("RECORD_DAMAGED"),
      "its ID is not recorded as completed",
    );
    assert.deepEqual(await store.getLedger(kept), before);

    assert.equal((await reservations.release(idOf("released"))).state, "released");
    await until(async () => {
      await reservations.expireDue(10);
      return (await reservations.get(idOf("due"))).state === "expired";
    }, "the reservation has expired");
    await reservations.expireDue(10);
    const { reserved, sold } = await store.getLedger(kept);
    assert.deepEqual({ reserved, sold }, { reserved: 1, sold: 1 });
  });

  it("continues the versions of a product after its ledger was deleted by hand", async () => {
    await using store = disposable(await openStore(redis.url));
    for (const name of ["put", "deleted"]) {
      const productId = `${name}-${randomUUID()}`;
      const put = { productId, details: undefined, declared: 10, updateTimeMicros: 1 };
      await store.putProduct(put);
      const { version } = await store.setSafetyStock(productId, 3);
      await client.del(...(await client.keys(`*:p:${productId}`)));
      if (name === "deleted") await store.deleteProduct({ productId, updateTimeMicros: 1 });
      const { ledger } = await store.putProduct({ ...put, updateTimeMicros: 2 });
      assert.deepEqual([ledger.version > version, ledger.declared, ledger.safety], [true, 10, 0], name);
    }
  });

  it("continues a listing after a reservation was extended between the reads of its deadline and its record", async () => {
    await using store = disposable(await openStore(redis.url));
    const { reservations } = store;
    const productId = `listed-${randomUUID()}`;
    await store.putProduct({ productId, details: undefined, declared: 10, updateTimeMicros: 1 });
    const lines = [{ productId, quantity: 1 }];
    const ids = ["first", "extended", "last"].map((name) => `${name}-${productId}`);
    for (const [place, reservationId] of ids.entries()) {
      await reservations.reserve({ reservationId, lines, ttlMs: 1_000_000 + place * 1_000 });
    }
    // The state that a reader sees which reads the deadlines before an extension and the records after it.
    const [key = ""] = await client.keys(`*:r:extended-${productId}`);
    const record: { expires: number } = JSON.parse((await client.get(key)) ?? "");
    await client.set(key, JSON.stringify({ ...record, expires: record.expires + 3_600_000 }));

    const listed: string[] = [];
    let [next] = await reservations.list({ limit: 1, after: undefined, expireBeforeMs: undefined });
    while (next !== undefined) {
      listed.push(next.reservationId);
      const after = { expireTimeMs: next.expireTimeMs ?? 0, reservationId: next.reservationId };
      [next] = await reservations.list({ limit: 1, after, expireBeforeMs: undefined });
    }
    assert.deepEqual(
      listed.filter((id) => ids.includes(id)),
      [ids[0], ids[2]],
    );
  });

  it("refuses a Redis whose layout has another number of buckets", async () => {
    await using _first = disposable(await openStore(redis.url));
    const other = new RedisStore({ endpoint: { url: redis.url }, log, keys: new Keys(4) });
    await assert.rejects(other.start(5_000), (error: Error) => {
      assert.ok(error instanceof RedisRequirementError);
      assert.match(error.message, /INVENTORY_BUCKETS is 4.*8 buckets/);
      return true;
    });
    assert.match((await other.unreadyReason()) ?? "", /INVENTORY_BUCKETS/);
    await assert.rejects(
      other.putProduct({ productId: "x", details: undefined, declared: 1, updateTimeMicros: 1 }),
      hasCode("STORE_UNAVAILABLE"),
    );
    await other.close();
  });

  it("warns of each setting that can lose stock", () => {
    const safe = {
      appendonly: "yes",
      appendfsync: "always",
      "maxmemory-policy": "noeviction",
      "min-replicas-to-write": "1",
      "min-replicas-max-lag": "2",
      "repl-ping-replica-period": "1",
    };
    const warnings = (config: Record<string, string>, acks = 1, replicas = 2) =>
      durabilityWarnings({ config: { ...safe, ...config }, acks, replicas }).join("\n");
    assert.equal(warnings({}), "");
    assert.equal(warnings({}, 0, 0), "");
    assert.match(warnings({ appendonly: "no" }), /appendonly/);
    assert.match(warnings({ appendfsync: "everysec" }), /'everysec'.*power loss/);
    assert.match(warnings({ "maxmemory-policy": "allkeys-lru" }), /allkeys-lru/);
    assert.match(warnings({}, 0, 2), /2 replicas follow, and REDIS_ACKS is 0.*set REDIS_ACKS=1/);
    assert.match(warnings({}, 1, 0), /0 replicas are online: mutations are refused/);
    assert.match(warnings({}, 1, 1), /if one fails, mutations are refused/);
    assert.match(warnings({ "min-replicas-to-write": "0" }), /set 'min-replicas-to-write 1'/);
    assert.match(warnings({ "min-replicas-max-lag": "10" }), /set 'min-replicas-max-lag 2'/);
    assert.match(warnings({ "repl-ping-replica-period": "10" }), /set 'repl-ping-replica-period 1'/);
  });
});

describe("RedisStore with the maximum number of buckets", { skip }, () => {
  it("changes, lists and expires in buckets with tags of two and of three digits", async () => {
    await using redis = await startRedis();
    const keys = new Keys(BUCKETS_MAX);
    await using store = disposable(new RedisStore({ endpoint: { url: redis.url }, log, keys }));
    await store.start(5_000);
    const ids = Array.from({ length: 5_000 }, (_, n) => `p${n}`);
    const low = ids.find((id) => keys.bucketOf(id) < 10) ?? "";
    const high = ids.find((id) => keys.bucketOf(id) >= 200) ?? "";
    const lines = [low, high].map((productId) => ({ productId, quantity: 2 }));
    for (const productId of [low, high]) {
      await store.putProduct({ productId, details: undefined, declared: 10, updateTimeMicros: 1 });
      await store.adjustStock({ productId, delta: 1, adjustmentId: "found", reason: "" });
    }
    const { reservations } = store;
    for (const [reservationId, ttlMs] of [
      [low, 3_600_000],
      [high, 0],
    ] as const) {
      await reservations.reserve({ reservationId, lines, ttlMs });
    }
    await until(async () => {
      await reservations.expireDue(10);
      return (await reservations.get(high)).state === "expired";
    }, "the reservation has expired");
    await reservations.commit({ reservationId: low, lines: undefined, strict: false });
    await reservations.return({
      reservationId: low,
      returnId: "back",
      lines: [{ productId: high, quantity: 1 }],
    });
    const found = await store.findChanges(
      { referenceId: "found", productId: undefined },
      { limit: 10, after: undefined },
    );
    assert.equal(found.changes.length, 2);
    const numbers = await Promise.all([low, high].map((id) => store.getLedger(id)));
    assert.deepEqual(
      numbers.map(({ adjusted, sold, reserved }) => [adjusted, sold, reserved]),
      [
        [1, 2, 0],
        [1, 1, 0],
      ],
    );
  });
});

describe("RedisStore under faults", { skip }, () => {
  it("applies an adjustment once if its reply is lost, and resolves", async () => {
    await using redis = await startRedis();
    await using proxy = await startTcpProxy({ target: redis });
    await using store = disposable(await openStore(proxy.url("redis")));
    const productId = "cut";
    await store.putProduct({ productId, details: undefined, declared: 1000, updateTimeMicros: 1 });
    const rounds = 20;
    let unreplied = 0;
    for (let n = 0; n < rounds; n++) {
      const cut = proxy.cutAfterRequest((chunk) => chunk.includes("adjust_stock"));
      const adjust = () => store.adjustStock({ productId, delta: 1, adjustmentId: `cut-${n}`, reason: "" });
      const ledger = await adjust().catch((error: unknown) => {
        // A stall of the machine by a second: the caller retries.
        assert.ok(hasCode("STORE_UNAVAILABLE")(error), String(error));
        unreplied += 1;
        return until(adjust, "the caller gets a reply");
      });
      await cut;
      assert.equal(ledger.adjusted, n + 1);
    }
    assert.ok(unreplied < rounds / 2, `${unreplied} of ${rounds} callers got no reply`);
    assert.equal((await store.getLedger(productId)).version, rounds + 1);
  });

  it("does not resend an operation without an ID, and rejects with STORE_UNAVAILABLE", async () => {
    await using redis = await startRedis();
    await using proxy = await startTcpProxy({ target: redis });
    await using store = disposable(await openStore(proxy.url("redis")));
    await store.putProduct({ productId: "s", details: undefined, declared: 10, updateTimeMicros: 1 });
    const cut = proxy.cutAfterRequest((chunk) => chunk.includes("set_safety_stock"));
    await assert.rejects(store.setSafetyStock("s", 3), hasCode("STORE_UNAVAILABLE"));
    await cut;
    await until(async () => (await store.unreadyReason()) === undefined, "the store is ready again");
    assert.equal((await store.getLedger("s")).safety, 3);
  });

  it("rejects within a second while Redis is frozen, and recovers", async (t) => {
    await using redis = await startRedis();
    await using store = disposable(await openStore(redis.url));
    await store.putProduct({ productId: "f", details: undefined, declared: 10, updateTimeMicros: 1 });
    redis.pause();
    const start = performance.now();
    await assert.rejects(store.getStock("f"), hasCode("STORE_UNAVAILABLE"));
    await assert.rejects(
      store.adjustStock({ productId: "f", delta: 1, adjustmentId: "f1", reason: "" }),
      hasCode("STORE_UNAVAILABLE"),
    );
    t.diagnostic(`two refusals took ${Math.round(performance.now() - start)} ms`);
    redis.resume();
    await until(async () => (await store.unreadyReason()) === undefined, "the store is ready again");
    const ledger = await store.adjustStock({ productId: "f", delta: 1, adjustmentId: "f1", reason: "" });
    assert.equal(ledger.adjusted, 1, "the first call may have run; the retry adds nothing");
  });

  it("loses and repeats no acknowledged operation while Redis is killed with SIGKILL under load", async (t) => {
    await using redis = await startRedis();
    await using store = disposable(await openStore(redis.url));
    const products = Array.from({ length: 10 }, (_, n) => `k${n}`);
    for (const productId of products) {
      await store.putProduct({ productId, details: undefined, declared: 1, updateTimeMicros: 1 });
    }
    const kills = 3;
    let ended = false;
    let refused = 0;
    let slowestMs = 0;
    const acknowledged = new Map(products.map((productId) => [productId, 0]));
    const writer = async (worker: number): Promise<void> => {
      for (let n = 0; !ended; n++) {
        const productId = products[(worker + n) % products.length] ?? "";
        const adjustmentId = `w${worker}-${n}`;
        // Retries with the same ID until there is a reply, as callers should.
        for (let answered = false; !answered; ) {
          const start = performance.now();
          try {
            await store.adjustStock({ productId, delta: 1, adjustmentId, reason: "" });
            answered = true;
            acknowledged.set(productId, (acknowledged.get(productId) ?? 0) + 1);
          } catch (error) {
            assert.ok(hasCode("STORE_UNAVAILABLE")(error), String(error));
            refused += 1;
            await new Promise((resolve) => setImmediate(resolve));
          }
          slowestMs = Math.max(slowestMs, performance.now() - start);
        }
      }
    };
    const total = () => [...acknowledged.values()].reduce((sum, n) => sum + n, 0);
    const writers = Promise.all(Array.from({ length: 64 }, (_, worker) => writer(worker)));
    for (let kill = 0; kill < kills; kill++) {
      const before = total();
      await until(() => total() > before + 500, "the writers make progress");
      await redis.kill9();
      const refusedBefore = refused;
      await until(() => refused > refusedBefore, "a writer is refused");
      await redis.restart();
    }
    const before = total();
    await until(() => total() > before + 500, "the writers make progress after the last kill");
    ended = true;
    await writers;
    for (const productId of products) {
      const ledger = await store.getLedger(productId);
      assert.equal(ledger.adjusted, acknowledged.get(productId));
      assert.equal(ledger.version, ledger.adjusted + 1);
    }
    assert.ok(slowestMs < REFUSED_MS_MAX, `a call took ${Math.round(slowestMs)} ms`);
    t.diagnostic(
      `${total()} adjustments, ${refused} refusals, ${kills} kills, slowest call ${Math.round(slowestMs)} ms`,
    );
  });

  it("starts unready without Redis, and becomes ready when Redis starts", async () => {
    const redis = await startRedis();
    await redis.kill9();
    await using store = disposable(new RedisStore({ endpoint: { url: redis.url }, log }));
    await store.start(100);
    assert.match((await store.unreadyReason()) ?? "", /ECONNREFUSED|not connected/);
    await assert.rejects(store.getStock("x"), hasCode("STORE_UNAVAILABLE"));
    await redis.restart();
    await until(async () => (await store.unreadyReason()) === undefined, "the store is ready");
    await assert.rejects(store.getStock("x"), hasCode("PRODUCT_UNKNOWN"));
    await redis.stop();
  });
});

function disposable(store: RedisStore): RedisStore & AsyncDisposable {
  return Object.assign(store, { [Symbol.asyncDispose]: () => store.close() });
}
