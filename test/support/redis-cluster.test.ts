import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { need } from "./programs.ts";
import { type RedisCluster, slotOfBucket, startRedisCluster } from "./redis-cluster.ts";

describe("startRedisCluster", { skip: need("redis-server").missing }, () => {
  let cluster: RedisCluster;
  before(async () => {
    cluster = await startRedisCluster({ appendonly: "no" });
  });
  after(() => cluster?.[Symbol.asyncDispose]());

  it("assigns every slot, and deals the buckets to the primaries in turn", async () => {
    for (const { direct } of cluster.nodes) {
      assert.match(String(await direct.cluster("INFO")), /cluster_slots_assigned:16384/);
    }
    for (const bucket of [0, 1, 2, 63, 255]) {
      const slot = slotOfBucket(bucket);
      assert.equal(
        await cluster.nodes[0]?.direct.cluster("KEYSLOT", `{b${String(bucket).padStart(2, "0")}}`),
        slot,
      );
      assert.equal(await cluster.primaryOf(slot), cluster.nodes[bucket % 3]);
    }
  });

  it("moves a slot with its keys", async () => {
    const slot = slotOfBucket(0);
    const [from, to] = cluster.nodes;
    assert.ok(from && to);
    await from.direct.set("{b00}:kept", "5");
    const move = await cluster.beginMove(slot, to);
    await assert.rejects(from.direct.get("{b00}:absent"), /^ReplyError: ASK /);
    assert.equal(await move.moveKeys(10), 1);
    await move.finish();
    assert.equal(await to.direct.get("{b00}:kept"), "5");
    await assert.rejects(from.direct.get("{b00}:kept"), new RegExp(`MOVED ${slot} ${to.address}`));
    await cluster.moveSlot(slot, from);
    assert.equal(await from.direct.get("{b00}:kept"), "5");
  });
});

describe("startRedisCluster with replicas and links", { skip: need("redis-server").missing }, () => {
  it("replaces a primary that dies with its link, and takes it back as a replica", async () => {
    await using cluster = await startRedisCluster({ replicas: 1, replicationDelayMs: 1, appendonly: "no" });
    const slot = slotOfBucket(1);
    const former = await cluster.primaryOf(slot);
    await former.direct.set("{b01}:kept", "5");
    assert.equal(await former.direct.wait(1, 1_000), 1);
    await cluster.kill(former);
    const primary = await cluster.promoted(slot, former);
    assert.equal(await primary.direct.get("{b01}:kept"), "5");
    await cluster.restart(former);
    await cluster.settled();
    assert.deepEqual(await cluster.replicasOf(primary), [former]);
  });
});

describe("startRedisCluster on valkey-9.1", { skip: need("valkey-9.1").missing }, () => {
  it("moves a slot atomically", async () => {
    await using cluster = await startRedisCluster({ server: "valkey-9.1" });
    const slot = slotOfBucket(0);
    const [from, to] = cluster.nodes;
    assert.ok(from && to);
    await from.direct.set("{b00}:kept", "5");
    await cluster.moveSlot(slot, to);
    assert.equal(await to.direct.get("{b00}:kept"), "5");
    const jobs = (await from.direct.call("CLUSTER", "GETSLOTMIGRATIONS")) as unknown[];
    assert.equal(jobs.length, 1);
  });
});
