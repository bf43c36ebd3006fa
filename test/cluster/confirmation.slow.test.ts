import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { pino } from "pino";
import { InventoryError } from "../../server/inventory/errors.ts";
import { parseAddresses } from "../../server/redis/connection/settings.ts";
import { Keys } from "../../server/redis/keys.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { need } from "../support/programs.ts";
import { slotOfBucket, startRedisCluster } from "../support/redis-cluster.ts";
import { until } from "../support/until.ts";

describe("a primary of a Redis Cluster with two replicas", { skip: need("redis-server").missing }, () => {
  it("acknowledges with a replica missing only while a majority of the primaries confirms it", async () => {
    // Longer than the test, so that no replica is promoted and no node refuses.
    await using cluster = await startRedisCluster({ replicas: 2, appendonly: "no", nodeTimeoutMs: 60_000 });
    const keys = new Keys(8);
    const endpoint = { acks: 1, cluster: { addresses: parseAddresses(cluster.addresses), tls: false } };
    const store = new RedisStore({ endpoint, log: pino({ level: "silent" }), keys });
    const primary = await cluster.primaryOf(slotOfBucket(0));
    const [replica] = await cluster.replicasOf(primary);
    const others = (await cluster.primaries()).filter((node) => node !== primary);
    assert.ok(replica);
    assert.equal(others.length, 2);
    const productId = Array.from({ length: 100 }, (_, n) => `product-${n}`).find(
      (id) => keys.bucketOf(id) === 0,
    );
    assert.ok(productId);
    let count = 0;
    const adjust = () =>
      store.adjustStock({ productId, delta: 1, adjustmentId: `adjustment-${++count}`, reason: "" });
    const frozen = new Set([replica]);
    try {
      await store.start(10_000);
      await store.putProduct({ productId, details: undefined, declared: 1, updateTimeMicros: 1 });
      // More than one per connection, so that each has counted both replicas.
      for (let n = 0; n < 40; n++) await adjust();

      replica.server.pause();
      await adjust();

      for (const node of others) {
        node.server.pause();
        frozen.add(node);
      }
      await assert.rejects(adjust(), (error) => {
        assert.ok(error instanceof InventoryError);
        assert.match(error.message, /a majority of the primaries does not confirm the primary/);
        return error.code === "STORE_UNAVAILABLE";
      });

      // One other primary and the primary itself are a majority of three.
      others[0]?.server.resume();
      await until(adjust, "the primary is confirmed again");
    } finally {
      for (const { server } of frozen) server.resume();
      await store.close();
    }
  });
});
