import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Redis } from "ioredis";
import { pino } from "pino";
import { InventoryError } from "../../server/inventory/errors.ts";
import type { FeedListener, FeedPartitions } from "../../server/inventory/feed.ts";
import { Mirror } from "../../server/live/mirror.ts";
import { LiveReads } from "../../server/live/reads.ts";
import { keySlot } from "../../server/redis/connection/key-slot.ts";
import { parseAddresses } from "../../server/redis/connection/settings.ts";
import { RedisFeed } from "../../server/redis/feed/feed.ts";
import { Keys } from "../../server/redis/keys.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { need } from "../support/programs.ts";
import { type ClusterNode, type RedisCluster, startRedisCluster } from "../support/redis-cluster.ts";
import { until } from "../support/until.ts";

const skip = need("redis-server").missing;
const log = pino({ level: "silent" });
const keys = new Keys(6);
const DATA = "data-of-this-test";
const buckets = Array.from({ length: keys.buckets }, (_, bucket) => bucket);

/** Two products of each bucket. */
const idsOf = buckets.map((bucket) => {
  const ids: string[] = [];
  for (let n = 0; ids.length < 2; n++) {
    if (keys.bucketOf(`p${n}`) === bucket) ids.push(`p${n}`);
  }
  return ids;
});
const ids = idsOf.flat();

/** A mirror and the feed that it follows. Records the loads by partition. */
class Follower implements AsyncDisposable {
  readonly mirror = new Mirror();
  readonly loads: [partition: number, isOtherData: boolean][] = [];
  /** The number of changes reported. */
  changes = 0;
  /** The log's lines about loads. */
  readonly lines: Record<string, unknown>[] = [];
  readonly #feed: RedisFeed;

  constructor(cluster: RedisCluster) {
    const { mirror } = this;
    const endpoint = endpointOf(cluster);
    const destination = {
      write: (text: string): void => {
        const line = JSON.parse(text);
        if (line.msg.startsWith("Loaded ")) this.lines.push(line);
      },
    };
    this.#feed = new RedisFeed({ endpoint, keys, log: pino({ level: "info" }, destination) });
    const listener: FeedListener = {
      onStart: (partitions: FeedPartitions) => mirror.onStart(partitions),
      onLoading: (isOtherData, partition) => {
        this.loads.push([partition, isOtherData]);
        mirror.onLoading(isOtherData, partition);
      },
      onProducts: (states, partition) => mirror.onProducts(states, partition),
      onLoaded: (partition) => mirror.onLoaded(partition),
      onUnavailable: (partition) => mirror.onUnavailable(partition),
      onChanges: (changes, partition) => {
        this.changes += changes.length;
        mirror.onChanges(changes, partition);
      },
      onSuperseded: () => mirror.onSuperseded(),
      onCollections: (collections) => mirror.onCollections(collections),
      onCurrent: (atMs, partition) => mirror.onCurrent(atMs, partition),
    };
    this.#feed.start(listener);
  }

  async loaded(): Promise<void> {
    await until(() => this.mirror.isLoaded && !this.mirror.isStale, "the mirror is loaded and current");
  }

  async hasVersions(versions: ReadonlyMap<string, number>): Promise<void> {
    await until(() => {
      for (const [productId, version] of versions) {
        const found = this.mirror.get(productId)?.version;
        if (found !== version) throw new Error(`${productId} is at version ${found}, not ${version}`);
      }
      return true;
    }, "the mirror has these versions");
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#feed.stop();
  }
}

function endpointOf({ addresses }: RedisCluster) {
  return { cluster: { addresses: parseAddresses(addresses), tls: false } };
}

describe("RedisFeed with a Redis Cluster", { skip }, () => {
  let cluster: RedisCluster;
  let follower: Follower;
  const versions = new Map<string, number>();

  const slotOf = (bucket: number): number => keySlot(keys.marker(bucket));
  const ownerOf = (bucket: number): Promise<ClusterNode> => cluster.primaryOf(slotOf(bucket));

  /** Appends the next change of a product as scripts/ledger.lua does. */
  async function change(productId: string, client?: Redis, version = (versions.get(productId) ?? 0) + 1) {
    const bucket = keys.bucketOf(productId);
    const redis = client ?? (await ownerOf(bucket)).direct;
    const now = Date.now();
    await redis
      .multi()
      .hset(keys.ledger(productId), { D: 100, A: 0, S: 0, H: 0, F: 0, V: version, T: now, U: 1, P: 1 })
      .sadd(keys.products(bucket), productId)
      .xadd(
        keys.changes(bucket),
        "*",
        "c",
        `adjusted 0 100 1 0 0 0 0 ${version} ${now} 0 \n${productId}\n\n\n`,
      )
      .exec();
    versions.set(productId, version);
  }

  before(async () => {
    if (skip) return;
    cluster = await startRedisCluster();
    for (const bucket of buckets) {
      await (await ownerOf(bucket)).direct.hset(keys.marker(bucket), "data", DATA);
    }
    for (const productId of ids) await change(productId);
    follower = new Follower(cluster);
    await follower.loaded();
  });
  after(async () => {
    await follower?.[Symbol.asyncDispose]();
    await cluster?.[Symbol.asyncDispose]();
  });

  it("loads each bucket, and follows its changes", async () => {
    await follower.hasVersions(versions);
    for (const productId of ids) await change(productId);
    await follower.hasVersions(versions);
    assert.deepEqual(
      follower.loads.toSorted(),
      buckets.map((bucket) => [bucket, false]),
    );
    assert.equal(follower.changes, ids.length, "each change is reported once");
  });

  it("logs one line when all buckets are loaded", () => {
    assert.deepEqual(
      follower.lines.map(({ msg, products, partitions }) => [msg, products, partitions]),
      [["Loaded every product's state", ids.length, buckets.length]],
    );
  });

  it("loads only the bucket that has a gap, and then other data", async () => {
    const [bucket, productId, others] = [2, idsOf[2]?.[0] ?? "", follower.loads.length];
    const lines = follower.lines.length;
    const { direct } = await ownerOf(bucket);
    const version = (versions.get(productId) ?? 0) + 1;
    await direct
      .multi()
      .hset(keys.ledger(productId), "V", version)
      .xadd(keys.changes(bucket), "*", "c", "never read")
      .xtrim(keys.changes(bucket), "MAXLEN", 0)
      .exec();
    versions.set(productId, version);
    await follower.hasVersions(versions);
    assert.deepEqual(follower.loads.slice(others), [[bucket, false]]);
    await direct
      .multi()
      .hset(keys.marker(bucket), "data", "restored")
      .hset(keys.ledger(productId), "V", 1)
      .exec();
    versions.set(productId, 1);
    await follower.hasVersions(versions);
    assert.deepEqual(follower.loads.slice(others), [
      [bucket, false],
      [bucket, true],
    ]);
    const line = ["Loaded the products of a partition again", 2, bucket];
    assert.deepEqual(
      follower.lines.slice(lines).map(({ msg, products, partition }) => [msg, products, partition]),
      [line, line],
    );
  });

  it("follows a bucket whose slot moves to another primary, and does not load it again", async () => {
    const [bucket, loads] = [1, follower.loads.length];
    const from = await ownerOf(bucket);
    const to = (await cluster.primaries()).find(({ id }) => id !== from.id);
    assert.ok(to !== undefined);
    await cluster.moveSlot(slotOf(bucket), to);
    assert.equal((await ownerOf(bucket)).id, to.id);
    for (const productId of ids) await change(productId);
    await follower.hasVersions(versions);
    await until(() => !follower.mirror.isStale, "every bucket is current");
    assert.equal(follower.loads.length, loads);
  });

  it("marks only the products of a shard that is down, and resumes when it is back", async () => {
    const loads = follower.loads.length;
    const down = await ownerOf(0);
    const [downIds, upIds]: [string[], string[]] = [[], []];
    for (const bucket of buckets) {
      ((await ownerOf(bucket)).id === down.id ? downIds : upIds).push(...(idsOf[bucket] ?? []));
    }
    assert.ok(downIds.length > 0 && upIds.length > 0);
    await cluster.kill(down);
    await until(() => downIds.every((id) => follower.mirror.isStaleOf(id)), "its products are stale");
    const store = new RedisStore({ endpoint: endpointOf(cluster), log, keys });
    await using late = new Follower(cluster);
    try {
      await until(() => late.mirror.isLoaded, "a server that starts now has loaded the others");
      assert.deepEqual([late.mirror.hasLoaded(upIds), late.mirror.hasLoaded(downIds)], [true, false]);
      const reads = new LiveReads(late.mirror, store);
      for (const productId of downIds) {
        const refused = (error: unknown) =>
          error instanceof InventoryError && error.code === "STORE_UNAVAILABLE";
        await assert.rejects(
          async () => await reads.getStock(productId),
          refused,
          `${productId} is not unknown`,
        );
      }
    } finally {
      await store.close();
    }
    for (const productId of upIds) await change(productId, (await ownerOf(keys.bucketOf(productId))).direct);
    const changed = new Map(upIds.map((id) => [id, versions.get(id) ?? 0]));
    for (const { hasVersions, mirror } of [follower, late]) {
      await hasVersions.call({ mirror } as Follower, changed);
      assert.deepEqual(
        [upIds.filter((id) => mirror.isStaleOf(id)), downIds.filter((id) => !mirror.isStaleOf(id))],
        [[], []],
      );
    }
    await cluster.restart(down);
    await cluster.settled();
    for (const productId of downIds) await change(productId);
    for (const each of [follower, late]) {
      await each.hasVersions(versions);
      await until(() => !each.mirror.isStale, "every bucket is current");
    }
    assert.equal(follower.loads.length, loads, "no bucket was loaded again");
    assert.deepEqual(late.mirror.hasLoaded(ids), true);
  });
});
