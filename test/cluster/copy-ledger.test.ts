import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { pino } from "pino";
import { parseAddresses } from "../../server/redis/connection/settings.ts";
import { openCluster, openRedis } from "../../server/redis/copy/clients.ts";
import { copyLedger } from "../../server/redis/copy/copy-ledger.ts";
import { CopyRefusedError, Source } from "../../server/redis/copy/source.ts";
import { Target } from "../../server/redis/copy/target.ts";
import { BUCKETS_DEFAULT, Keys } from "../../server/redis/keys.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { fill, goesOn, observe, openStore, publishAll } from "../redis/copied-ledger.ts";
import { need } from "../support/programs.ts";
import { type RedisCluster, startRedisCluster } from "../support/redis-cluster.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { openClusterStore, settling } from "./cluster-stores.ts";

/** As `openClusterStore` has them. */
const BUCKETS = 16;
const keys = new Keys(BUCKETS);
const log = pino({ level: "silent" });

describe("copy-ledger to a Redis Cluster", { skip: need("redis-server").missing }, () => {
  let from: RedisServer;
  let cluster: RedisCluster;
  let observed: unknown;
  const printed: string[] = [];

  before(async () => {
    [from, cluster] = await Promise.all([
      startRedis({ appendonly: "no" }),
      startRedisCluster({ appendonly: "no" }),
    ]);
    const store = await openStore(from.url, BUCKETS_DEFAULT);
    await fill(store);
    observed = await observe(store);
    await store.close();
    await publishAll(from.url);
  });
  after(async () => {
    await Promise.all([from?.stop(), cluster?.[Symbol.asyncDispose]()]);
  });

  async function copy(): Promise<boolean> {
    const nodes = parseAddresses(cluster.addresses).slice(0, 1);
    const [source, target] = await Promise.all([openRedis(from.url), openCluster({ nodes, tls: false })]);
    try {
      return await copyLedger({
        source: await Source.open(source),
        target: new Target(target, BUCKETS),
        force: false,
        discardUnpublished: false,
        print: (line) => printed.push(line),
      });
    } finally {
      source.disconnect();
      target.disconnect();
    }
  }

  it("copies to all primaries: callers see the same", async () => {
    assert.equal(await copy(), true, printed.join("\n"));
    assert.ok(printed.includes("0 differences"), printed.join("\n"));
    for (const { direct } of cluster.nodes) {
      assert.ok((await direct.dbsize()) > 0);
    }
    const endpoint = { cluster: { addresses: parseAddresses(cluster.addresses), tls: false } };
    const store = new RedisStore({ endpoint, log, keys });
    try {
      await store.start(10_000);
      assert.deepEqual(await observe(store), observed);
    } finally {
      await store.close();
    }
  });

  it("writes holds that account for the units of every ledger", async () => {
    const held = new Map<string, number>();
    const sold = new Map<string, number>();
    for (const { direct } of cluster.nodes) {
      for (const key of await direct.keys("{b*}:x:*")) {
        const bucket = keys.bucketIn(key);
        const { epoch, revision, lines } = JSON.parse((await direct.get(key)) ?? "");
        assert.deepEqual([epoch, revision], [1, 0]);
        for (const [productId, unitsHeld, unitsSold] of lines) {
          assert.equal(keys.bucketOf(productId), bucket, "a hold is in the bucket of its products");
          held.set(productId, (held.get(productId) ?? 0) + unitsHeld);
          sold.set(productId, (sold.get(productId) ?? 0) + unitsSold);
        }
        assert.equal(
          (await direct.pttl(key)) < 0,
          lines.some(([, units]: number[]) => units !== 0),
        );
      }
    }
    let products = 0;
    for (const { direct } of cluster.nodes) {
      for (const key of await direct.keys("{b*}:p:*")) {
        const { H, S } = await direct.hgetall(key);
        const productId = key.replace(/^\{b\d+\}:p:/, "");
        assert.deepEqual([held.get(productId) ?? 0, sold.get(productId) ?? 0], [Number(H), Number(S)], key);
        products += 1;
      }
    }
    assert.equal(products, 40);
  });

  it("goes on: repetitions are recognised, and reservations end as if they had been made here", async () => {
    const { store, state } = await openClusterStore(cluster);
    try {
      await goesOn(settling(store), 3);
      await state.check((productId) => store.getLedger(productId));
    } finally {
      await store.close();
    }
  });

  it("refuses a Cluster that is not empty on any of its nodes, and the ledger of a Cluster as source", async () => {
    await assert.rejects(copy(), CopyRefusedError);
    const node = cluster.nodes[0];
    assert.ok(node !== undefined);
    const client = await openRedis(node.server.url);
    await assert.rejects(Source.open(client), /Redis Cluster/);
    client.disconnect();
  });
});
