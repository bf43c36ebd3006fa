import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { cp, rename, rm } from "node:fs/promises";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { Redis } from "ioredis";
import { pino } from "pino";
import type { FeedListener, ProductState } from "../../server/inventory/feed.ts";
import type { StockChange } from "../../server/inventory/ledger.ts";
import { Mirror } from "../../server/live/mirror.ts";
import { LiveReads } from "../../server/live/reads.ts";
import { RedisFeed } from "../../server/redis/feed.ts";
import { BUCKETS_DEFAULT, Keys } from "../../server/redis/keys.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";

const skip = need("redis-server").missing;
const log = pino({ level: "silent" });
const keys = new Keys(BUCKETS_DEFAULT);
const CATALOG = 20_000;

/** A mirror that counts what the feed tells it. */
class Follower implements FeedListener {
  readonly mirror = new Mirror();
  readonly loads: boolean[] = [];
  loaded = 0;
  changes = 0;
  looks = 0;
  /** Called with each part of a full picture, before it is applied. */
  onPart: () => void = () => undefined;

  onLoading(isOtherData: boolean): void {
    this.loads.push(isOtherData);
    this.mirror.onLoading(isOtherData);
  }

  onProducts(states: readonly ProductState[]): void {
    this.onPart();
    this.mirror.onProducts(states);
  }

  onLoaded(): void {
    this.loaded += 1;
    this.mirror.onLoaded();
  }

  onChanges(changes: readonly StockChange[]): void {
    this.changes += changes.length;
    this.mirror.onChanges(changes);
  }

  onCollections(collections: Parameters<FeedListener["onCollections"]>[0]): void {
    this.looks += 1;
    this.mirror.onCollections(collections);
  }

  onStale(stale: boolean): void {
    this.mirror.onStale(stale);
  }
}

/** A feed behind a line that can be broken, and a store with a line of its own. */
class Scene implements AsyncDisposable {
  readonly redis: RedisServer;
  readonly line: TcpProxy;
  readonly raw: Redis;
  readonly follower = new Follower();
  readonly feed: RedisFeed;
  store: RedisStore;

  private constructor(redis: RedisServer, line: TcpProxy) {
    this.redis = redis;
    this.line = line;
    this.raw = new Redis(redis.url);
    this.raw.on("error", () => undefined);
    this.store = this.#newStore();
    this.feed = new RedisFeed({ endpoint: { url: line.url("redis") }, keys, log });
  }

  static async open(prepare: (scene: Scene) => Promise<void> = async () => undefined): Promise<Scene> {
    const redis = await startRedis({ appendonly: "no" });
    const scene = new Scene(redis, await startTcpProxy({ target: redis }));
    await scene.store.start(5_000);
    await prepare(scene);
    scene.feed.start(scene.follower);
    await until(() => scene.follower.loaded === 1 && !scene.mirror.isStale, "the first picture is loaded");
    return scene;
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

  /** Resolves when the mirror has what the store has, of these products. */
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
    }, "the mirror has what the store has");
  }

  /** As another server finds Redis after its data is gone. */
  async reopenStore(): Promise<void> {
    await this.store.close();
    this.store = this.#newStore();
    await this.store.start(5_000);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.feed.stop();
    await this.store.close();
    this.raw.disconnect();
    await this.line.close();
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
  const putAll = async (scene: Scene): Promise<void> => {
    await Promise.all(ids.map((id) => scene.put(id, 100)));
  };
  const streams = Array.from({ length: keys.buckets }, (_, bucket) => keys.changes(bucket));

  it("takes up where it was after a cut, without another picture", async () => {
    await using scene = await Scene.open(putAll);
    for (let round = 1; round <= 3; round++) {
      await scene.line.cut();
      await until(() => scene.mirror.isStale, "the mirror is stale");
      await Promise.all(ids.map((id) => scene.adjust(id, 1)));
      await scene.store.deleteProduct({ productId: `new-${round - 1}`, updateTimeMicros: undefined });
      await scene.put(`new-${round}`, round);
      const before = scene.follower.changes;
      await scene.line.pass();
      await scene.caughtUp([...ids, `new-${round}`, `new-${round - 1}`]);
      await until(() => !scene.mirror.isStale, "the mirror is fresh");
      assert.equal(scene.follower.changes - before, ids.length + 2, "each change is told once");
    }
    assert.deepEqual(scene.follower.loads, [false]);
  });

  describe("after Redis itself was killed", () => {
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
      await until(() => follower.loaded === 1, "the first picture is loaded");
    });
    afterEach(async () => {
      await feed.stop();
      await store.close();
      await redis.stop();
    });

    it("takes up where it was, where all data is back", async () => {
      await adjust();
      await isAt(2);
      await redis.kill9();
      await until(() => follower.mirror.isStale, "the mirror is stale");
      await isBack();
      await adjust();
      await isAt(3);
      assert.deepEqual(follower.loads, [false]);
    });

    it("notices that it came back with an older state of its data", async () => {
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

  it("loads again where the stream was trimmed past its place meanwhile", async () => {
    await using scene = await Scene.open(putAll);
    await scene.line.cut();
    await Promise.all(ids.map((id) => scene.adjust(id, 1)));
    for (const stream of streams) {
      await scene.raw.xtrim(stream, "MAXLEN", 0);
    }
    await scene.adjust("p0", 1);
    await scene.line.pass();
    await scene.caughtUp(ids);
    assert.deepEqual(scene.follower.loads, [false, false]);
  });

  it("does not load again and again where a stream was trimmed and nothing was missed", async () => {
    await using scene = await Scene.open(putAll);
    await scene.caughtUp(ids);
    for (const stream of streams) {
      await scene.raw.xtrim(stream, "MAXLEN", 0);
    }
    const looks = scene.follower.looks;
    await until(() => scene.follower.looks >= looks + 4, "it has looked at the streams some times", 20_000);
    assert.ok(scene.follower.loads.length <= 2, `it loaded ${scene.follower.loads.length} times`);
  });

  it("notices a Redis that is empty", async () => {
    await using scene = await Scene.open(putAll);
    await scene.raw.flushall();
    await until(() => [...scene.mirror.visible()].length === 0, "all products are gone");
    assert.equal(scene.follower.loads.at(-1), true);
  });

  for (const [when, isCut] of [
    ["while it follows", false],
    ["while its line is cut", true],
  ] as const) {
    for (const [what, others] of [
      ["in part", ["gone", "gone-2"]],
      ["in every stream that was", []],
    ] as const) {
      it(`notices other data with lower versions, written anew ${what} ${when}`, async () => {
        await using scene = await Scene.open(async (opening) => {
          await Promise.all(["p", ...others].map((id) => opening.put(id, 100)));
        });
        for (let n = 0; n < 5; n++) {
          await scene.adjust("p", -1);
        }
        await scene.caughtUp(["p", ...others]);
        if (isCut) {
          await scene.line.cut();
        }
        await scene.raw.flushall();
        await scene.reopenStore();
        await scene.put("p", 7);
        if (isCut) {
          await scene.line.pass();
        }
        await scene.caughtUp(["p", ...others]);
        assert.equal(scene.mirror.get("p")?.available, 7);
      });
    }
  }

  it("stops at once, also while Redis is away, and tells nothing more", async () => {
    await using scene = await Scene.open(putAll);
    await scene.line.freeze();
    await scene.feed.stop();
    const { changes, looks } = scene.follower;
    await scene.line.pass();
    await scene.adjust("p0", 1);
    assert.deepEqual([scene.follower.changes, scene.follower.looks], [changes, looks]);
  });
});

describe("RedisFeed with a large catalog", { skip }, () => {
  let scene: Scene;
  const renamed: string[] = [];
  let madeDuringLoad = 0;
  const changed = Array.from({ length: 200 }, (_, n) => `product-${n * 100}`);
  const writes: Promise<unknown>[] = [];

  before(async () => {
    if (skip) {
      return;
    }
    scene = await Scene.open(async (opening) => {
      for (let n = 0; n < CATALOG; n += 500) {
        await Promise.all(Array.from({ length: 500 }, (_, m) => opening.put(`product-${n + m}`, 50)));
      }
      // Each part of the picture is followed by changes, of products that it had and that are to come.
      opening.follower.onPart = () => {
        for (let n = 0; n < 10; n++) {
          madeDuringLoad += 1;
          writes.push(opening.adjust(changed[madeDuringLoad % changed.length] ?? "", -1));
          const renamedId = `product-${CATALOG - madeDuringLoad}`;
          renamed.push(renamedId);
          writes.push(opening.put(renamedId, 1_000, "another name"));
        }
      };
    });
    scene.follower.onPart = () => undefined;
  });
  after(() => scene?.[Symbol.asyncDispose]());

  it(`has all ${CATALOG} products, and the changes made while they were loaded`, async (t) => {
    await Promise.all(writes);
    assert.equal(scene.mirror.size, CATALOG);
    assert.ok(madeDuringLoad > 100);
    t.diagnostic(`${madeDuringLoad} changes were made during the load`);
    await scene.caughtUp([...changed, ...renamed]);
    assert.deepEqual(scene.follower.loads, [false]);
    assert.equal(scene.mirror.get("product-7")?.details?.name, "name of product-7");
    const names = new Set(renamed.map((id) => scene.mirror.get(id)?.details?.name));
    assert.deepEqual([...names], ["another name"]);
  });
});

describe("LiveReads: read your writes", { skip }, () => {
  it("a read after an acknowledged change is never older, though the feed is frozen", async () => {
    const ids = ["p", "q", "r"];
    await using scene = await Scene.open(async (opening) => {
      await Promise.all(ids.map((id) => opening.put(id, 1_000)));
    });
    const reads = new LiveReads(scene.mirror, scene.store);
    await scene.line.freeze();
    for (let n = 1; n <= 50; n++) {
      const ledger = await scene.adjust("p", -1);
      const { value } = await reads.getStock("p");
      assert.ok(
        value.version >= ledger.version,
        `version ${ledger.version} was told, ${value.version} is read`,
      );
      const reservation = { reservationId: `r${n}`, lines: [{ productId: "q", quantity: 1 }], ttlMs: 60_000 };
      await scene.store.reservations.reserve(reservation);
      const batch = await reads.batchGetStock(["r", "q", "unknown", "p"]);
      assert.deepEqual(
        batch.value.map((stock) => stock?.available),
        [1_000, 1_000 - n, undefined, 1_000 - n],
      );
    }
    await scene.store.deleteProduct({ productId: "r", updateTimeMicros: undefined });
    await assert.rejects(async () => await reads.getStock("r"), /"r"/);
    await scene.put("new", 3);
    assert.equal((await reads.getStock("new")).value.available, 3);
    await until(() => scene.mirror.isStale, "the mirror is stale");
    await scene.line.pass();
    await until(
      () => scene.mirror.current("p")?.available === 950,
      "the mirror has caught up, and is read again",
    );
    await until(() => scene.mirror.current("q")?.available === 950, "the other one, too");
    await until(() => !scene.mirror.isStale, "the mirror is fresh");
    await assert.rejects(async () => await reads.getStock("r"), /"r"/);
  });

  it("answers from the mirror, marked stale, where the store is away too; an unknown ID is unavailable", async () => {
    await using scene = await Scene.open(async (opening) => {
      await opening.put("p", 5);
      await opening.put("q", 6);
    });
    const reads = new LiveReads(scene.mirror, scene.store);
    assert.deepEqual((await reads.batchGetStock(["p"])).stale, false);
    // Acknowledged, and not heard of by the mirror: then the last known state must do.
    await scene.line.freeze();
    await scene.adjust("q", -1);
    await scene.redis.kill9();
    await until(() => scene.mirror.isStale, "the mirror is stale");
    const one = await reads.getStock("q");
    assert.deepEqual([one.value.available, one.stale], [6, true]);
    const both = await reads.batchGetStock(["q", "p"]);
    assert.deepEqual([both.value.map((stock) => stock?.available), both.stale], [[6, 5], true]);
    await assert.rejects(async () => await reads.getStock("unknown"), { code: "STORE_UNAVAILABLE" });
    await assert.rejects(reads.batchGetStock(["p", "unknown"]), { code: "STORE_UNAVAILABLE" });
  });
});
