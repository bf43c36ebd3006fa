import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { pino } from "pino";
import { Registry } from "prom-client";
import { z } from "zod";
import { InventoryError } from "../../server/inventory/errors.ts";
import { parseAddresses } from "../../server/redis/connection/settings.ts";
import { SlotMap } from "../../server/redis/connection/slot-map.ts";
import { Keys } from "../../server/redis/keys.ts";
import { RedisMetrics } from "../../server/redis/metrics.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { need } from "../support/programs.ts";
import {
  type ClusterNode,
  type RedisCluster,
  slotOfBucket,
  startRedisCluster,
} from "../support/redis-cluster.ts";
import { startRedisMonitor } from "../support/redis-monitor.ts";
import { startRedis } from "../support/redis-server.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";

const log = pino({ level: process.env["ROUTER_LOG"] ?? "silent" });
const BUCKETS = 64;
const keys = new Keys(BUCKETS);
const START_MS_MAX = 5_000;
const DECLARED = 1_000;

function open(addresses: string, metrics?: RedisMetrics): RedisStore {
  const cluster = { addresses: parseAddresses(addresses), tls: false };
  return new RedisStore({ endpoint: { cluster }, log, keys, instruments: { metrics } });
}

/** A product of each bucket, by bucket. */
const PRODUCTS = Array.from({ length: BUCKETS }, (_, bucket) => {
  for (let n = 0; ; n++) {
    if (keys.bucketOf(`product-${n}`) === bucket) return `product-${n}`;
  }
});

function productOf(bucket: number): string {
  return PRODUCTS[bucket] ?? "";
}

/** Products of one node, and the others. */
async function split(cluster: RedisCluster, node: ClusterNode): Promise<[own: string[], others: string[]]> {
  const owners = await Promise.all(PRODUCTS.map((_, bucket) => cluster.primaryOf(slotOfBucket(bucket))));
  return [
    PRODUCTS.filter((_, bucket) => owners[bucket] === node),
    PRODUCTS.filter((_, bucket) => owners[bucket] !== node),
  ];
}

/** Adds units, each adjustment under an ID of its own, and counts what callers were told. */
class AdjustLoad {
  readonly acknowledged = new Map<string, number>();
  readonly unknown = new Map<string, number>();
  readonly errors: unknown[] = [];
  readonly #running: Promise<unknown>;
  #isStopped = false;
  #count = 0;

  constructor(stores: readonly RedisStore[], productIds: readonly string[], name: string) {
    this.#running = Promise.all(
      productIds.map(async (productId, index) => {
        const store = stores[index % stores.length];
        while (!this.#isStopped) {
          const adjustmentId = `${name}-${++this.#count}`;
          const told = await store?.adjustStock({ productId, delta: 1, adjustmentId, reason: "" }).then(
            () => this.acknowledged,
            (error: unknown) => {
              this.errors.push(error);
              return this.unknown;
            },
          );
          told?.set(productId, (told.get(productId) ?? 0) + 1);
        }
      }),
    );
  }

  /** Resolves when every product has been adjusted `count` more times. */
  async progress(count = 3): Promise<void> {
    const earlier = new Map(this.acknowledged);
    await until(
      () => [...earlier].every(([id, before]) => (this.acknowledged.get(id) ?? 0) >= before + count),
      "the load goes on for every product",
    );
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#running;
  }
}

/** Whether no node ran the call, because its slot was on the move for as long as a call waits. */
function isRedirected(error: unknown): boolean {
  return (
    error instanceof InventoryError &&
    error.code === "STORE_UNAVAILABLE" &&
    error.cause instanceof Error &&
    /^(MOVED|ASK|TRYAGAIN) /.test(error.cause.message)
  );
}

async function isUnavailable(call: Promise<unknown>): Promise<InventoryError> {
  const error = await call.then(
    () => assert.fail("the call succeeded"),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof InventoryError, String(error));
  assert.equal(error.code, "STORE_UNAVAILABLE");
  return error;
}

describe("the router of a Redis Cluster", { skip: need("redis-server").missing }, () => {
  let cluster: RedisCluster;
  let store: RedisStore;
  const registry = new Registry();

  before(async () => {
    cluster = await startRedisCluster({ appendonly: "no" });
    store = open(cluster.addresses, new RedisMetrics(registry));
    await store.start(START_MS_MAX);
    await Promise.all(
      PRODUCTS.map((productId) =>
        store.putProduct({ productId, details: undefined, declared: DECLARED, updateTimeMicros: 1 }),
      ),
    );
  });
  after(async () => {
    await store?.close();
    await cluster?.[Symbol.asyncDispose]();
  });

  /** Compares the ledgers with what callers were told since `before`. */
  async function audit(load: AdjustLoad, earlier: ReadonlyMap<string, number>): Promise<void> {
    for (const [productId, acknowledged] of load.acknowledged) {
      const { adjusted } = await store.getLedger(productId);
      const added = adjusted - (earlier.get(productId) ?? 0);
      const most = acknowledged + (load.unknown.get(productId) ?? 0);
      assert.ok(
        added >= acknowledged && added <= most,
        `${productId}: ${added} of ${acknowledged} to ${most}`,
      );
    }
  }

  async function adjustedNow(): Promise<Map<string, number>> {
    const ledgers = await store.batchGetLedgers(PRODUCTS);
    return new Map(ledgers.flatMap((ledger) => (ledger ? [[ledger.productId, ledger.adjusted]] : [])));
  }

  it("reads and writes each bucket at its primary", async () => {
    const primaries = await cluster.primaries();
    assert.equal(primaries.length, 3);
    for (const [bucket, productId] of PRODUCTS.entries()) {
      const ledger = await store.adjustStock({ productId, delta: 1, adjustmentId: "first", reason: "" });
      assert.equal(ledger.adjusted, 1);
      const node = await cluster.primaryOf(slotOfBucket(bucket));
      assert.equal(await node.direct.hget(keys.ledger(productId), "A"), "1");
    }
    const stocks = await store.batchGetStock(PRODUCTS);
    assert.deepEqual(new Set(stocks.map((stock) => stock?.available)), new Set([DECLARED + 1]));
    const { changes } = await store.findChanges(
      { referenceId: "first", productId: undefined },
      { limit: 1_000, after: undefined },
    );
    assert.equal(changes.length, BUCKETS);
    assert.equal(await store.reservations.countActive(), 0);
    assert.equal(await store.unreadyReason(), undefined);
    assert.deepEqual(store.cluster?.degraded(), []);
  });

  it("divides many mutations of one bucket among script calls", async () => {
    const productId = productOf(5);
    const node = await cluster.primaryOf(slotOfBucket(5));
    const before = await store.getLedger(productId);
    await using monitor = await startRedisMonitor(node.server.port);
    await Promise.all(
      Array.from({ length: 200 }, (_, n) =>
        store.adjustStock({ productId, delta: 1, adjustmentId: `many-${n}`, reason: "" }),
      ),
    );
    assert.equal((await store.getLedger(productId)).adjusted, before.adjusted + 200);
    const commands = await monitor.commands();
    const operations = commands.flatMap(({ args: [name, , keyCount, ...rest] }) => {
      // ARGV of scripts/batch.lua: four settings, then the operations.
      const text = name === "evalsha" ? rest[Number(keyCount) + 4] : undefined;
      return text?.includes("adjust_stock") ? [z.array(z.unknown()).parse(JSON.parse(text)).length] : [];
    });
    assert.deepEqual(operations, [64, 64, 64, 8]);
  });

  it("authenticates at every node", async () => {
    for (const { direct } of cluster.nodes) {
      await direct.acl("SETUSER", "router", "on", ">secret", "~*", "&*", "+@all");
    }
    const adjust = (by: RedisStore, adjustmentId: string) =>
      Promise.all(
        [0, 1, 2].map((bucket) =>
          by.adjustStock({ productId: productOf(bucket), delta: 1, adjustmentId, reason: "" }),
        ),
      );
    const [right, wrong] = ["secret", "guessed"].map((password) => {
      const endpoint = {
        password,
        cluster: { addresses: parseAddresses(cluster.addresses), tls: false, username: "router" },
      };
      return new RedisStore({ endpoint, log, keys });
    });
    assert.ok(right && wrong);
    try {
      await Promise.all([right.start(START_MS_MAX), wrong.start(500)]);
      await adjust(right, "authenticated");
      await isUnavailable(adjust(wrong, "refused"));
      assert.notEqual(await wrong.unreadyReason(), undefined);
    } finally {
      await Promise.all([right.close(), wrong.close()]);
    }
  });

  it("answers for a product that does not exist, whose plain key is at another node", async () => {
    for (let n = 0; n < 20; n++) {
      await assert.rejects(store.getLedger(`nothing-${n}`), { code: "PRODUCT_UNKNOWN" });
    }
  });

  it("follows slots that move while two servers write, and applies each adjustment once", async () => {
    const second = open(cluster.addresses);
    await second.start(START_MS_MAX);
    const earlier = await adjustedNow();
    const load = new AdjustLoad([store, second], PRODUCTS, "moving");
    try {
      await load.progress();
      const [one, two, three] = await cluster.primaries();
      assert.ok(one && two && three);
      for (const [bucket, to] of [
        [0, two],
        [1, three],
        [2, one],
        [0, three],
        [0, one],
      ] as const) {
        await cluster.moveSlot(slotOfBucket(bucket), to);
        await load.progress(1);
      }
    } finally {
      await load.stop();
      await second.close();
    }
    await audit(load, earlier);
    // On a busy machine a slot can take longer to move than a call waits.
    assert.deepEqual(
      load.errors.filter((error) => !isRedirected(error)),
      [],
    );
    const text = await registry.metrics();
    assert.match(text, /inventory_redis_error_replies_total\{reply="MOVED"\} [1-9]/);
    assert.match(text, /inventory_redis_topology_changes_total [1-9]/);
  });

  it("reports a change of primaries once to a listener that then listens again, as a waiting read does", async () => {
    const map = new SlotMap({
      endpoint: { addresses: parseAddresses(cluster.addresses), tls: false },
      password: undefined,
      keys,
      log,
      metrics: undefined,
    });
    try {
      await map.firstKnown;
      let calls = 0;
      const listen = (): void => {
        map.onChange(() => {
          calls += 1;
          if (calls < 100) listen();
        });
      };
      listen();
      const slot = slotOfBucket(5);
      const home = await cluster.primaryOf(slot);
      const away = (await cluster.primaries()).find((node) => node !== home);
      assert.ok(away);
      await cluster.moveSlot(slot, away);
      map.refresh();
      await until(() => calls > 0, "the move is reported");
      assert.equal(calls, 1);
    } finally {
      map.close();
    }
  });

  it("checks a bucket again that another server has written elsewhere before it came back", async () => {
    const bucket = 3;
    const productId = productOf(bucket);
    const home = await cluster.primaryOf(slotOfBucket(bucket));
    const away = (await cluster.primaries()).find((node) => node !== home);
    assert.ok(away);
    const adjust = (by: RedisStore, adjustmentId: string) =>
      by.adjustStock({ productId, delta: 1, adjustmentId, reason: "" });
    const idle = open(cluster.addresses);
    try {
      await idle.start(START_MS_MAX);
      await adjust(idle, "back-1");
      for (const [n, to] of [away, home].entries()) {
        await cluster.moveSlot(slotOfBucket(bucket), to);
        await adjust(store, `back-${n + 2}`);
      }
      const { adjusted } = await adjust(idle, "back-4");
      assert.equal((await store.getLedger(productId)).adjusted, adjusted);
    } finally {
      await idle.close();
    }
  });

  it("rejects a bucket whose slot stays between two nodes, and serves it again once the move is complete", async () => {
    const bucket = 5;
    const from = await cluster.primaryOf(slotOfBucket(bucket));
    const to = (await cluster.primaries()).find((node) => node !== from);
    assert.ok(to);
    const move = await cluster.beginMove(slotOfBucket(bucket), to);
    await move.moveKeys(1_000);
    const adjust = (id: string) =>
      store.adjustStock({ productId: productOf(bucket), delta: 1, adjustmentId: id, reason: "" });
    try {
      await isUnavailable(adjust("between"));
      await isUnavailable(store.getLedger(productOf(bucket)));
      await store.adjustStock({ productId: productOf(6), delta: 1, adjustmentId: "between", reason: "" });
    } finally {
      await move.finish();
    }
    const { adjusted } = await store.getLedger(productOf(bucket));
    assert.equal((await adjust("between")).adjusted, adjusted + 1);
  });

  it("does not send a mutation twice after a connection was cut between effect and reply", async () => {
    const [node] = await cluster.primaries();
    assert.ok(node);
    await using proxy = await startTcpProxy({ target: { port: node.server.port } });
    await node.direct.config("SET", "cluster-announce-port", String(proxy.port));
    const proxied = open(proxy.address);
    try {
      await proxied.start(START_MS_MAX);
      const [[productId = ""]] = await split(cluster, node);
      const cutAt = (operation: string) =>
        proxy.cutAfterRequest((chunk) => chunk.includes(`["${operation}"`));
      // Has its connections checked and its scripts cached.
      await until(
        () => proxied.setSafetyStock(productId, 0).then(() => proxy.connections() > 0),
        "the server writes through the proxy",
      );
      const before = await store.getLedger(productId);

      const cut = cutAt("adjust_stock");
      await proxied.adjustStock({ productId, delta: 1, adjustmentId: "cut", reason: "" });
      await cut;
      assert.equal((await store.getLedger(productId)).adjusted, before.adjusted + 1);

      const cutAgain = cutAt("set_safety_stock");
      await isUnavailable(proxied.setSafetyStock(productId, 7));
      await cutAgain;
      const { safety, version } = await store.getLedger(productId);
      assert.deepEqual({ safety, version }, { safety: 7, version: before.version + 2 });
    } finally {
      await proxied.close();
      await node.direct.config("SET", "cluster-announce-port", String(node.server.port));
    }
    // The other nodes learn the port by gossip, and name it to a server while this node is slow to respond.
    await until(async () => {
      const views = await Promise.all(cluster.nodes.map(({ direct }) => direct.cluster("NODES")));
      return views.every((view) => !String(view).includes(`:${proxy.port}@`));
    }, "every node knows the port again");
    // The server may have learned the proxy's port. The lost connections make it ask again.
    await proxy.cut();
    await until(
      () =>
        JSON.stringify(store.cluster?.details()).includes(node.address) &&
        store.cluster?.degraded().length === 0,
      "the server is connected to the node itself",
    );
  });

  it("rejects the buckets of a frozen primary, serves all others, and resumes", async () => {
    const [, , node] = await cluster.primaries();
    assert.ok(node);
    const [frozen, others] = await split(cluster, node);
    const adjust = (productId: string, adjustmentId: string) =>
      store.adjustStock({ productId, delta: 1, adjustmentId, reason: "" });
    const [own = "", other = ""] = [frozen[0], others[0]];
    await until(
      () => Promise.all([adjust(own, "before"), adjust(other, "before")]),
      "the connections to both nodes are ready",
    );
    node.server.pause();
    try {
      await Promise.all([isUnavailable(adjust(own, "frozen")), adjust(other, "frozen")]);
      await store.unreadyReason();
      assert.match(
        store.cluster?.degraded().join() ?? "",
        new RegExp(`node ${node.address} are unavailable`),
      );
    } finally {
      node.server.resume();
    }
    await until(() => adjust(frozen[0] ?? "", "frozen"), "the node serves again");
    await until(
      async () => (await store.unreadyReason()) === undefined && store.cluster?.degraded().length === 0,
      "nothing is degraded",
    );
  });

  it("rejects the buckets of a lost primary at once, serves all others, and does not accept it back empty", async () => {
    const [, node] = await cluster.primaries();
    assert.ok(node);
    const [lost, others] = await split(cluster, node);
    const adjust = (productId: string, adjustmentId: string) =>
      store.adjustStock({ productId, delta: 1, adjustmentId, reason: "" });
    await node.server.kill9();
    const degraded = await until(
      () => store.cluster?.degraded().find((text) => text.includes(node.address)),
      "the health report names the node",
    );
    assert.match(degraded, new RegExp(`${lost.length} of ${lost.length} buckets of node ${node.address}`));
    assert.equal(await store.unreadyReason(), undefined);
    const results = await Promise.allSettled(PRODUCTS.map((id) => adjust(id, "shard-lost")));
    for (const [index, { status }] of results.entries()) {
      assert.equal(status, lost.includes(productOf(index)) ? "rejected" : "fulfilled");
    }
    await isUnavailable(store.getLedger(lost[0] ?? ""));
    assert.equal((await store.batchGetLedgers(others)).filter(Boolean).length, others.length);
    const text = await registry.metrics();
    assert.ok(
      text.includes(`inventory_redis_cluster_buckets_unavailable{node="${node.address}"} ${lost.length}`),
      text,
    );
    assert.ok(text.includes(`inventory_redis_up{connection="reads",node="${node.address}"} 0`), text);

    // Without an append-only file it comes back with its slots and without data.
    await node.server.restart();
    await until(
      () => store.cluster?.degraded().some((each) => each.includes("lost its data")),
      "it is found empty",
    );
    await isUnavailable(adjust(lost[0] ?? "", "empty"));
    await adjust(others[0] ?? "", "empty");
    const fresh = open(cluster.addresses);
    try {
      await fresh.start(START_MS_MAX);
      await isUnavailable(
        fresh.putProduct({ productId: lost[0] ?? "", details: undefined, declared: 1, updateTimeMicros: 2 }),
      );
      await fresh.adjustStock({ productId: others[0] ?? "", delta: 1, adjustmentId: "fresh", reason: "" });
    } finally {
      await fresh.close();
    }
  });
});

describe("configuration of a Redis Cluster", { skip: need("redis-server").missing }, () => {
  it("refuses a node of a Cluster as REDIS_URL, and a single Redis as REDIS_CLUSTER", async () => {
    await using redis = await startRedis({ appendonly: "no" });
    const single = open(`127.0.0.1:${redis.port}`);
    await assert.rejects(single.start(START_MS_MAX), {
      name: "RedisRequirementError",
      message: new RegExp(`REDIS_CLUSTER names 127.0.0.1:${redis.port}.*set REDIS_URL`),
    });
    await single.close();
    await using node = await startRedis({ appendonly: "no", args: ["--cluster-enabled", "yes"] });
    const store = new RedisStore({ endpoint: { url: node.url }, log });
    await assert.rejects(store.start(START_MS_MAX), {
      name: "RedisRequirementError",
      message: /set REDIS_CLUSTER/,
    });
    await store.close();
  });
});
