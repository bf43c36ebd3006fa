import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { keySlot } from "../../../server/redis/connection/key-slot.ts";
import { CLUSTER_BUCKETS_DEFAULT, Keys } from "../../../server/redis/keys.ts";
import { startTestApp, type TestApp } from "../../support/app.ts";
import { freePort } from "../../support/free-port.ts";
import { need } from "../../support/programs.ts";
import { type Prometheus, startPrometheus } from "../../support/prometheus.ts";
import { type ClusterNode, type RedisCluster, startRedisCluster } from "../../support/redis-cluster.ts";
import { type ServerProcess, startServerProcess } from "../../support/server-process.ts";
import { FiredAlerts } from "./coverage.ts";
import { during, post, untilDone } from "./traffic.ts";

const skip = need("redis-server").missing || need("prometheus").missing;
const exporter = need("prometheus-redis-exporter");
const fired = new FiredAlerts("test/deploy/alerts/cluster.long.ts");
const keys = new Keys(CLUSTER_BUCKETS_DEFAULT);
const PRODUCTS = 200;

describe("alerts on a Redis Cluster fire by their faults", { skip }, () => {
  let cluster: RedisCluster;
  let app: TestApp;
  let prometheus: Prometheus;
  let exporting: ServerProcess | undefined;
  let folder: string;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "inventory-exporter-"));
    cluster = await startRedisCluster({ primaries: 3, replicas: 1 });
    const adminPort = await freePort();
    app = await startTestApp({
      ...{ REDIS_CLUSTER: cluster.addresses, REDIS_ACKS: "1", ADMIN_PORT: String(adminPort) },
    });
    const target = exporter.missing ? undefined : await startExporter(node(0));
    prometheus = await startPrometheus({
      inventory: [{ targets: [`127.0.0.1:${adminPort}`] }],
      ...(target === undefined ? {} : { redis: [{ targets: [target] }] }),
    });
    await untilDone(put);
  });
  after(async () => {
    await prometheus?.[Symbol.asyncDispose]();
    await exporting?.end();
    await app?.stop();
    await cluster?.[Symbol.asyncDispose]();
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  });

  /** The nodes as they were started: three primaries, and then a replica of each. */
  function node(index: number): ClusterNode {
    const found = cluster.nodes[index];
    assert.ok(found, `node ${index}`);
    return found;
  }

  async function startExporter({ address }: ClusterNode): Promise<string> {
    const target = `127.0.0.1:${await freePort()}`;
    exporting = await startServerProcess({
      command: exporter.path,
      args: [`--redis.addr=redis://${address}`, `--web.listen-address=${target}`],
      logFile: join(folder, "exporter.log"),
      removeOnCrash: folder,
    });
    return target;
  }

  let number = 0;
  /** Supplies products of all buckets in turn. Replicas are counted when something is written. */
  const put = () =>
    post(app.url, "SupplyService/PutProduct", {
      productId: `p-${number++ % PRODUCTS}`,
      declared: 1_000,
      updateTime: new Date().toISOString(),
    });

  async function assertFires(alert: string, fault: () => Promise<unknown>): Promise<void> {
    await during(prometheus.untilSilent(alert), put);
    await fault();
    await during(prometheus.untilFiring(alert), put);
    fired.add(alert);
  }

  it("two of three primaries that do not respond: InventoryClusterNotOk", {
    skip: exporter.missing,
  }, async () => {
    await assertFires("InventoryClusterNotOk", async () => {
      node(1).server.pause();
      node(2).server.pause();
    });
    node(1).server.resume();
    node(2).server.resume();
    await cluster.settled();
  });

  it("a replica killed: InventoryShardWithoutReplica names its primary", async () => {
    const primary = await cluster.primaryOf(keySlot(keys.marker(0)));
    const [replica] = await cluster.replicasOf(primary);
    assert.ok(replica);
    await assertFires("InventoryShardWithoutReplica", () => cluster.kill(replica));
    const nodes = (await prometheus.labelsOf("InventoryShardWithoutReplica")).map((labels) => labels["node"]);
    assert.deepEqual(nodes, [primary.address]);
    await cluster.restart(replica);
    await cluster.settled();
  });

  it("a primary and its replica killed: InventoryBucketsUnavailable names the primary", async () => {
    const primary = await cluster.primaryOf(keySlot(keys.marker(0)));
    const [replica] = await cluster.replicasOf(primary);
    assert.ok(replica);
    await assertFires("InventoryBucketsUnavailable", async () => {
      await cluster.kill(replica);
      await cluster.kill(primary);
    });
    const nodes = (await prometheus.labelsOf("InventoryBucketsUnavailable")).map((labels) => labels["node"]);
    assert.deepEqual(nodes, [primary.address]);
    await cluster.restart(primary);
    await cluster.restart(replica);
    await cluster.settled();
  });

  it("a slot that was taken from its node: InventorySlotsUnassigned", async () => {
    const slot = keySlot(keys.marker(0));
    const owner = await cluster.primaryOf(slot);
    await assertFires("InventorySlotsUnassigned", async () => {
      await owner.direct.call("CLUSTER", "DELSLOTS", slot);
      for (const other of cluster.nodes) {
        // Some have removed it after the owner's heartbeat.
        if (other !== owner) await other.direct.call("CLUSTER", "DELSLOTS", slot).catch(() => undefined);
      }
    });
  });

  it("every alert that is listed for this file has fired", () => {
    fired.assertComplete(exporter.missing ? ["InventoryClusterNotOk"] : []);
  });
});
