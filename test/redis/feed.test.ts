import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { cp, rename, rm } from "node:fs/promises";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { Redis } from "ioredis";
import { pino } from "pino";
import type { FeedListener, FeedPartitions, ProductState } from "../../server/inventory/feed.ts";
import type { ChangeCause, StockChange } from "../../server/inventory/ledger.ts";
import { Mirror } from "../../server/live/mirror.ts";
import { LiveReads } from "../../server/live/reads.ts";
import { RedisFeed } from "../../server/redis/feed/feed.ts";
import { BUCKETS_DEFAULT, Keys } from "../../server/redis/keys.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { startTestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";

const skip = need("redis-server").missing;
const log = pino({ level: "silent" });
const keys = new Keys(BUCKETS_DEFAULT);
const CATALOG = 20_000;

/** A mirror that counts what the feed reports. */
class Follower implements FeedListener {
  readonly mirror = new Mirror();
  readonly loads: boolean[] = [];
  loaded = 0;
  changes = 0;
  superseded = 0;
  checks = 0;
  /** How often it was proved that everything was reported. */
  proofs = 0;
  /** Called with each part of a snapshot, before it is applied. */
  onPart: () => void = () => undefined;

  onStart(partitions: FeedPartitions): void {
    this.mirror.onStart(partitions);
  }

  onLoading(isOtherData: boolean, partition: number): void {
    this.loads.push(isOtherData);
    this.mirror.onLoading(isOtherData, partition);
  }

  onProducts(states: readonly ProductState[], partition: number): void {
    this.onPart();
    this.mirror.onProducts(states, partition);
  }

  onLoaded(partition: number): void {
    this.loaded += 1;
    this.mirror.onLoaded(partition);
  }

  onUnavailable(partition: number): void {
    this.mirror.onUnavailable(partition);
  }

  onChanges(changes: readonly StockChange[], partition: number): void {
    this.changes += changes.length;
    this.mirror.onChanges(changes, partition);
  }

  onSuperseded(causes: ReadonlyMap<ChangeCause, number>): void {
    for (const count of causes.values()) {
      this.superseded += count;
    }
  }

  onCollections(collections: Parameters<FeedListener["onCollections"]>[0]): void {
    this.checks += 1;
    this.mirror.onCollections(collections);
  }

  onCurrent(atMs: number, partition: number): void {
    this.proofs += 1;
    this.mirror.onCurrent(atMs, partition);
  }
}

/** A feed behind a TCP proxy, and a store connected directly. */
class Fixture implements AsyncDisposable {
  readonly redis: RedisServer;
  readonly proxy: TcpProxy;
  readonly raw: Redis;
  readonly follower = new Follower();
  readonly feed: RedisFeed;
  store: RedisStore;

  private constructor(redis: RedisServer, proxy: TcpProxy) {
    this.redis = redis;
    this.proxy = proxy;
    this.raw = new Redis(redis.url);
    this.raw.on("error", () => undefined);
    this.store = this.#newStore();
    this.feed = new RedisFeed({ endpoint: { url: proxy.url("redis") }, keys, log });
  }

  static async open(prepare: (fixture: Fixture) => Promise<void> = async () => undefined): Promise<Fixture> {
    const redis = await startRedis({ appendonly: "no" });
    const fixture = new Fixture(redis, await startTcpProxy({ target: redis }));
    await fixture.store.start(5_000);
    await prepare(fixture);
    fixture.feed.start(fixture.follower);
    await until(
      () => fixture.follower.loaded === 1 && !fixture.mirror.isStale,
      "the first snapshot is loaded",
    );
    return fixture;
  }

  get mirror(): Mirror {
    return this.follower.mirror;
  }

  async put(productId: string, declared: number, name = `name of ${productId}`): Promise<void> {
    await this.store.putProduct({
      productId,
      declared,
      details: { name, description: "", price: 1, collectionId: "" },
      updateTimeMicros: undefined,
    });
  }

  adjust(productId: string, delta: number) {
    return this.store.adjustStock({ productId, delta, adjustmentId: randomUUID(), reason: "" });
  }

  /** Resolves when mirror and store agree on these products. */
  async caughtUp(productIds: readonly string[]): Promise<void> {
    const stocks = await this.store.batchGetStock(productIds);
    await until(() => {
      for (const [index, productId] of productIds.entries()) {
        const { version, available } = this.mirror.get(productId) ?? {};
        const stock = stocks[index];
        if (version !== stock?.version || available !== stock?.available) {
          throw new Error(
            `${productId} is at version ${version} with ${available}; the store has ${JSON.stringify(stock)}`,
          );
        }
      }
      return true;
    }, "mirror and store agree");
  }

  /** Opens the store anew, as a server does that starts after Redis has lost its data. */
  async reopenStore(): Promise<void> {
    await this.store.close();
    this.store = this.#newStore();
    await this.store.start(5_000);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.feed.stop();
    await this.store.close();
    this.raw.disconnect();
    await this.proxy.close();
    await this.redis.stop();
  }

  #newStore(): RedisStore {
    return new RedisStore({
      endpoint: { url: this.redis.url },
      log,
      keys,
      onAcknowledged: (productId, version) => this.mirror.expect(productId, version),
    });
  }
}

describe("RedisFeed", { skip }, () => {
  const ids = Array.from({ length: 40 }, (_, n) => `p${n}`);
  const putAll = async (fixture: Fixture): Promise<void> => {
    await Promise.all(ids.map((id) => fixture.put(id, 100)));
  };
  const streams = Array.from({ length: keys.buckets }, (_, bucket) => keys.changes(bucket));

  it("resumes after a disconnect without another snapshot", async () => {
    await using fixture = await Fixture.open(putAll);
    for (let round = 1; round <= 3; round++) {
      await fixture.proxy.cut();
      await until(() => fixture.mirror.isStale, "the mirror is stale");
      await Promise.all(ids.map((id) => fixture.adjust(id, 1)));
      await fixture.store.deleteProduct({ productId: `new-${round - 1}`, updateTimeMicros: undefined });
      await fixture.put(`new-${round}`, round);
      const before = fixture.follower.changes;
      await fixture.proxy.pass();
      await fixture.caughtUp([...ids, `new-${round}`, `new-${round - 1}`]);
      await until(() => !fixture.mirror.isStale, "the mirror is fresh");
      assert.equal(fixture.follower.changes - before, ids.length + 2, "each change is reported once");
    }
    assert.deepEqual(fixture.follower.loads, [false]);
  });

  describe("after Redis was killed", () => {
    let redis: RedisServer;
    let store: RedisStore;
    let feed: RedisFeed;
    let follower: Follower;
    const adjust = () =>
      store.adjustStock({ productId: "p", delta: 1, adjustmentId: randomUUID(), reason: "" });
    const isAt = (version: number) =>
      until(() => follower.mirror.get("p")?.version === version, `the mirror is at version ${version}`);
    const isBack = async (): Promise<void> => {
      await redis.restart();
      await until(async () => (await store.unreadyReason()) === undefined, "the store is ready again");
    };
    beforeEach(async () => {
      redis = await startRedis();
      store = new RedisStore({ endpoint: { url: redis.url }, log, keys });
      await store.start(5_000);
      await store.putProduct({ productId: "p", declared: 10, details: undefined, updateTimeMicros: 1 });
      follower = new Follower();
      feed = new RedisFeed({ endpoint: { url: redis.url }, keys, log });
      feed.start(follower);
      await until(() => follower.loaded === 1, "the first snapshot is loaded");
    });
    afterEach(async () => {
      await feed.stop();
      await store.close();
      await redis.stop();
    });

    it("resumes if no data was lost", async () => {
      await adjust();
      await isAt(2);
      await redis.kill9();
      await until(() => follower.mirror.isStale, "the mirror is stale");
      await isBack();
      await adjust();
      await isAt(3);
      assert.deepEqual(follower.loads, [false]);
    });

    it("detects an older state of the same data", async () => {
      const backup = `${redis.dir}-backup`;
      await cp(redis.dir, backup, { recursive: true });
      await Promise.all([adjust(), adjust(), adjust()]);
      await isAt(4);
      await redis.kill9();
      await rm(redis.dir, { recursive: true });
      await rename(backup, redis.dir);
      await isBack();
      assert.equal((await store.getStock("p")).version, 1);
      await isAt(1);
      await adjust();
      await isAt(2);
    });
  });

  it("loads another snapshot after a trim of entries that it has not read", async () => {
    await using fixture = await Fixture.open(putAll);
    await fixture.proxy.cut();
    await Promise.all(ids.map((id) => fixture.adjust(id, 1)));
    for (const stream of streams) {
      await fixture.raw.xtrim(stream, "MAXLEN", 0);
    }
    await fixture.adjust("p0", 1);
    await fixture.proxy.pass();
    await fixture.caughtUp(ids);
    assert.deepEqual(fixture.follower.loads, [false, false]);
  });

  it("does not load snapshots repeatedly after a trim of entries that it has read", async () => {
    await using fixture = await Fixture.open(putAll);
    await fixture.caughtUp(ids);
    for (const stream of streams) {
      await fixture.raw.xtrim(stream, "MAXLEN", 0);
    }
    const checks = fixture.follower.checks;
    await until(
      () => fixture.follower.checks >= checks + 4,
      "it has checked the streams several times",
      20_000,
    );
    assert.ok(fixture.follower.loads.length <= 2, `it loaded ${fixture.follower.loads.length} times`);
  });

  it("skips to the newest state of a product within a read, and counts what it skips", async () => {
    await using fixture = await Fixture.open((opening) => opening.put("p", 1_000));
    await fixture.proxy.cut();
    const reserve = (n: number) =>
      fixture.store.reservations.reserve({
        reservationId: `r${n}`,
        lines: [{ productId: "p", quantity: 1 }],
        ttlMs: 60_000,
      });
    await reserve(1);
    await fixture.put("p", 2_000, "another name");
    for (let n = 2; n <= 10; n++) {
      await reserve(n);
    }
    await fixture.adjust("p", 5);
    await reserve(11);
    await reserve(12);
    await fixture.proxy.pass();
    await fixture.caughtUp(["p"]);
    assert.equal(fixture.mirror.get("p")?.available, 1_993);
    assert.equal(fixture.mirror.get("p")?.details?.name, "another name", "details are never skipped");
    assert.deepEqual([fixture.follower.changes, fixture.follower.superseded], [3, 11]);
  });

  it("detects an empty Redis", async () => {
    await using fixture = await Fixture.open(putAll);
    await fixture.raw.flushall();
    await until(() => [...fixture.mirror.visible()].length === 0, "all products are removed");
    assert.equal(fixture.follower.loads.at(-1), true);
  });

  for (const [when, isCut] of [
    ["while connected", false],
    ["while disconnected", true],
  ] as const) {
    for (const [what, others] of [
      ["in some streams", ["removed", "removed-2"]],
      ["in all streams", []],
    ] as const) {
      it(`detects other data with lower versions, written ${what} ${when}`, async () => {
        await using fixture = await Fixture.open(async (opening) => {
          await Promise.all(["p", ...others].map((id) => opening.put(id, 100)));
        });
        for (let n = 0; n < 5; n++) {
          await fixture.adjust("p", -1);
        }
        await fixture.caughtUp(["p", ...others]);
        if (isCut) {
          await fixture.proxy.cut();
        }
        await fixture.raw.flushall();
        await fixture.reopenStore();
        await fixture.put("p", 7);
        if (isCut) {
          await fixture.proxy.pass();
        }
        await fixture.caughtUp(["p", ...others]);
        assert.equal(fixture.mirror.get("p")?.available, 7);
      });
    }
  }

  it("stops at once while Redis does not respond, and reports nothing afterwards", async () => {
    await using fixture = await Fixture.open(putAll);
    await fixture.proxy.freeze();
    await fixture.feed.stop();
    const { changes, checks } = fixture.follower;
    await fixture.proxy.pass();
    await fixture.adjust("p0", 1);
    assert.deepEqual([fixture.follower.changes, fixture.follower.checks], [changes, checks]);
  });
});

describe("RedisFeed with a large catalog", { skip }, () => {
  let fixture: Fixture;
  const renamed: string[] = [];
  let changesDuringLoad = 0;
  const changed = Array.from({ length: 200 }, (_, n) => `product-${n * 100}`);
  const writes: Promise<unknown>[] = [];

  before(async () => {
    if (skip) {
      return;
    }
    fixture = await Fixture.open(async (opening) => {
      for (let n = 0; n < CATALOG; n += 500) {
        await Promise.all(Array.from({ length: 500 }, (_, m) => opening.put(`product-${n + m}`, 50)));
      }
      // Each part of the snapshot is followed by changes of products before and after it.
      opening.follower.onPart = () => {
        for (let n = 0; n < 10; n++) {
          changesDuringLoad += 1;
          writes.push(opening.adjust(changed[changesDuringLoad % changed.length] ?? "", -1));
          const renamedId = `product-${CATALOG - changesDuringLoad}`;
          renamed.push(renamedId);
          writes.push(opening.put(renamedId, 1_000, "another name"));
        }
      };
    });
    fixture.follower.onPart = () => undefined;
  });
  after(() => fixture?.[Symbol.asyncDispose]());

  it(`has all ${CATALOG} products, and the changes made while they were loaded`, async (t) => {
    await Promise.all(writes);
    assert.equal(fixture.mirror.size, CATALOG);
    assert.ok(changesDuringLoad > 100);
    t.diagnostic(`${changesDuringLoad} changes were made during the load`);
    await fixture.caughtUp([...changed, ...renamed]);
    assert.deepEqual(fixture.follower.loads, [false]);
    assert.equal(fixture.mirror.get("product-7")?.details?.name, "name of product-7");
    const names = new Set(renamed.map((id) => fixture.mirror.get(id)?.details?.name));
    assert.deepEqual([...names], ["another name"]);
  });

  it("a server that starts reports the result of its load, not that the catalog is being sorted", async () => {
    await using app = await startTestApp({ REDIS_URL: fixture.redis.url });
    assert.deepEqual(app.unreadyReasons, []);
  });
});

describe("LiveReads: read your writes", { skip }, () => {
  it("a read is never older than an acknowledged change while the feed is frozen", async () => {
    const ids = ["p", "q", "r"];
    await using fixture = await Fixture.open(async (opening) => {
      await Promise.all(ids.map((id) => opening.put(id, 1_000)));
    });
    const reads = new LiveReads(fixture.mirror, fixture.store);
    await fixture.proxy.freeze();
    for (let n = 1; n <= 50; n++) {
      const ledger = await fixture.adjust("p", -1);
      const { value } = await reads.getStock("p");
      assert.ok(
        value.version >= ledger.version,
        `version ${ledger.version} was acknowledged, ${value.version} was read`,
      );
      const reservation = { reservationId: `r${n}`, lines: [{ productId: "q", quantity: 1 }], ttlMs: 60_000 };
      await fixture.store.reservations.reserve(reservation);
      const batch = await reads.batchGetStock(["r", "q", "unknown", "p"]);
      assert.deepEqual(
        batch.value.map((stock) => stock?.available),
        [1_000, 1_000 - n, undefined, 1_000 - n],
      );
    }
    await fixture.store.deleteProduct({ productId: "r", updateTimeMicros: undefined });
    await assert.rejects(async () => await reads.getStock("r"), /"r"/);
    await fixture.put("new", 3);
    assert.equal((await reads.getStock("new")).value.available, 3);
    await until(() => fixture.mirror.isStale, "the mirror is stale");
    await fixture.proxy.pass();
    await until(
      () => fixture.mirror.current("p")?.available === 950,
      "the mirror has caught up, and is read again",
    );
    await until(
      () => fixture.mirror.current("q")?.available === 950,
      "the mirror has caught up on the other product",
    );
    await until(() => !fixture.mirror.isStale, "the mirror is fresh");
    await assert.rejects(async () => await reads.getStock("r"), /"r"/);
  });

  it("reads from the mirror, marked stale, while the store is unavailable; an unknown ID is STORE_UNAVAILABLE", async () => {
    await using fixture = await Fixture.open(async (opening) => {
      await opening.put("p", 5);
      await opening.put("q", 6);
    });
    const reads = new LiveReads(fixture.mirror, fixture.store);
    assert.deepEqual((await reads.batchGetStock(["p"])).stale, false);
    // Acknowledged, but not in the mirror yet: the last known state is returned.
    await fixture.proxy.freeze();
    await fixture.adjust("q", -1);
    await fixture.redis.kill9();
    await until(() => fixture.mirror.isStale, "the mirror is stale");
    const one = await reads.getStock("q");
    assert.deepEqual([one.value.available, one.stale], [6, true]);
    const both = await reads.batchGetStock(["q", "p"]);
    assert.deepEqual([both.value.map((stock) => stock?.available), both.stale], [[6, 5], true]);
    await assert.rejects(async () => await reads.getStock("unknown"), { code: "STORE_UNAVAILABLE" });
    await assert.rejects(reads.batchGetStock(["p", "unknown"]), { code: "STORE_UNAVAILABLE" });
  });
});
