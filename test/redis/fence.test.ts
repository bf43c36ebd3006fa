import assert from "node:assert/strict";
import { cp, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Redis } from "ioredis";
import { pino } from "pino";
import { Registry } from "prom-client";
import { InventoryError } from "../../server/inventory/errors.ts";
import { RedisMetrics } from "../../server/redis/metrics.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";

const skip = need("redis-server").missing;
const isUnavailable = (error: unknown) =>
  error instanceof InventoryError && error.code === "STORE_UNAVAILABLE";

interface Line {
  readonly level: number;
  readonly msg: string;
}

/** A store on a Redis of its own, with its log and metrics. */
class Setup implements AsyncDisposable {
  readonly lines: Line[] = [];
  readonly registry = new Registry();
  readonly redis: RedisServer;
  readonly client: Redis;
  readonly store: RedisStore;

  constructor(redis: RedisServer) {
    this.redis = redis;
    this.client = new Redis(redis.url);
    this.client.on("error", () => undefined);
    this.store = new RedisStore({
      endpoint: { url: redis.url },
      log: pino({ level: "warn" }, { write: (line) => this.lines.push(JSON.parse(line)) }),
      instruments: { metrics: new RedisMetrics(this.registry) },
    });
  }

  static async start(): Promise<Setup> {
    const setup = new Setup(await startRedis());
    await setup.store.start(5_000);
    return setup;
  }

  declare(productId: string, declared: number, updateTimeMicros: number) {
    return this.store.putProduct({ productId, details: undefined, declared, updateTimeMicros });
  }

  async metric(name: string): Promise<number | undefined> {
    const metric = await this.registry.getSingleMetric(name)?.get();
    return metric?.values[0]?.value;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.client.disconnect();
    await this.store.close();
    await this.redis.stop();
  }
}

describe("the fence", { skip }, () => {
  let setup: Setup;
  before(async () => {
    setup = await Setup.start();
  });
  after(() => setup?.[Symbol.asyncDispose]());

  it("refuses a batch under another incarnation, learns the new one and runs the batch once", async () => {
    await setup.declare("fence-1", 5, 1);
    const bucket = "{b00}:bucket";
    const markers = await setup.client.keys("{b*}:bucket");
    assert.ok(markers.includes(bucket), "every bucket has a marker");
    for (const marker of markers) await setup.client.hincrby(marker, "incarnation", 1);
    const ledger = await setup.store.adjustStock({
      productId: "fence-1",
      delta: 3,
      adjustmentId: "fence-adjust-1",
      reason: "",
    });
    assert.equal(ledger.adjusted, 3);
    assert.equal(ledger.version, 2);
  });

  it("refuses a Redis with other data, and gives the reason", async () => {
    await setup.declare("fence-2", 5, 1);
    const layout = await setup.client.hget("{b00}:layout", "data");
    await setup.client.hset("{b00}:layout", "data", "other");
    const markers = await setup.client.keys("{b*}:bucket");
    for (const marker of markers) await setup.client.hset(marker, "data", "other");
    await assert.rejects(setup.declare("fence-2", 6, 2), isUnavailable);
    const reason = await until(() => setup.store.unreadyReason(), "the store says why it is not ready");
    assert.match(reason, /holds the data other, and this server has worked with the data/);
    await setup.client.hset("{b00}:layout", "data", String(layout));
    for (const marker of markers) await setup.client.hset(marker, "data", String(layout));
    await until(async () => (await setup.store.unreadyReason()) === undefined, "the store is ready again");
    await setup.declare("fence-2", 7, 3);
  });

  it("refuses a bucket that has lost its marker, also after a restart of the server, until it is accepted", async () => {
    const marker = "{b03}:bucket";
    const { redis, client, store } = setup;
    assert.equal(await client.hget("{b00}:layout", "marked"), "1");
    await client.del(marker);
    await client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
    await until(
      async () => /Bucket 3 has lost its data/.test((await store.unreadyReason()) ?? ""),
      "the store says why it is not ready",
    );
    const start = async () => {
      const restarted = new RedisStore({ endpoint: { url: redis.url }, log: pino({ level: "silent" }) });
      await restarted.start(5_000).finally(() => restarted.close());
    };
    await assert.rejects(start(), /Bucket 3 has lost its data/);
    assert.equal(await client.exists(marker), 0, "nothing is written to it");
    await client.hdel("{b00}:layout", "marked");
    await start();
    assert.equal(await client.hget("{b00}:layout", "marked"), "1");
    await until(async () => (await store.unreadyReason()) === undefined, "the first store is ready again");
    await setup.declare("fence-4", 5, 1);
  });

  it("refuses a Redis that came back empty", async () => {
    await setup.declare("fence-3", 5, 1);
    await setup.client.flushall();
    await assert.rejects(setup.declare("fence-3", 6, 2), isUnavailable);
    const reason = await until(() => setup.store.unreadyReason(), "the store says why it is not ready");
    assert.match(reason, /holds no data/);
    assert.equal(await setup.client.dbsize(), 0, "nothing is written to it");
  });
});

describe("the fence after a restart of Redis", { skip }, () => {
  it("does not report a loss if no acknowledged change is missing", async () => {
    await using setup = await Setup.start();
    await setup.declare("kept", 5, 1);
    await setup.redis.kill9();
    await setup.redis.restart();
    await until(async () => (await setup.store.unreadyReason()) === undefined, "the store is ready again");
    await setup.declare("kept", 6, 2);
    assert.equal(await setup.metric("inventory_redis_failovers_total"), 1);
    assert.equal(await setup.metric("inventory_redis_suspect"), 0);
    assert.deepEqual(
      setup.lines.filter(({ level }) => level >= 50),
      [],
    );
  });

  it("reports acknowledged changes that an older state of the data lacks", async () => {
    await using setup = await Setup.start();
    await setup.declare("lost", 5, 1);
    const files = join(setup.redis.dir, "appendonlydir");
    await cp(files, `${files}.old`, { recursive: true });
    await setup.declare("lost", 6, 2);
    await setup.redis.kill9();
    await rm(files, { recursive: true });
    await cp(`${files}.old`, files, { recursive: true });
    await setup.redis.restart();
    await until(async () => (await setup.store.unreadyReason()) === undefined, "the store is ready again");
    const errors = setup.lines.filter(({ level }) => level >= 50).map(({ msg }) => msg);
    assert.equal(errors.length, 1);
    assert.match(errors[0] ?? "", /lost acknowledged changes: version 2 of product lost/);
    assert.equal(await setup.metric("inventory_redis_suspect"), 1);
    assert.deepEqual(setup.store.replication.degraded(), errors);
    await setup.declare("lost", 7, 3);
  });
});
