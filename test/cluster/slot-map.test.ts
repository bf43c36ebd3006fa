import assert from "node:assert/strict";
import { it } from "node:test";
import { pino } from "pino";
import { parseAddresses } from "../../server/redis/connection/settings.ts";
import { SlotMap } from "../../server/redis/connection/slot-map.ts";
import { Keys } from "../../server/redis/keys.ts";
import { need } from "../support/programs.ts";
import { slotOfBucket, startRedisCluster } from "../support/redis-cluster.ts";
import { until } from "../support/until.ts";

/** Longer than the test, so that nodes that do not reach each other go on serving. */
const NODE_TIMEOUT_MS = 60_000;
const BUCKET = 0;

it("of two nodes that claim a slot, the map names the one with the greater epoch, whichever is asked first", {
  skip: need("redis-server").missing,
}, async () => {
  await using cluster = await startRedisCluster({
    appendonly: "no",
    replicationDelayMs: 0,
    nodeTimeoutMs: NODE_TIMEOUT_MS,
  });
  const slot = slotOfBucket(BUCKET);
  const former = await cluster.primaryOf(slot);
  const others = cluster.nodes.filter((node) => node !== former);
  const [owner] = others;
  assert.ok(owner);
  const open = (addresses: string) =>
    new SlotMap({
      endpoint: { addresses: parseAddresses(addresses), tls: false },
      password: undefined,
      keys: new Keys(1),
      log: pino({ level: "silent" }),
      metrics: undefined,
    });
  const early = open(cluster.addresses);
  const late: SlotMap[] = [];
  try {
    await early.firstKnown;
    assert.equal(early.ownerOf(BUCKET)?.name, former.address);

    // Nodes no longer hear of each other. Then one takes over the slot with a new epoch, as after a failover.
    for (const { busLink } of cluster.nodes) busLink?.cut();
    await owner.direct.cluster("SETSLOT", slot, "IMPORTING", former.id);
    await owner.direct.cluster("SETSLOT", slot, "NODE", owner.id);
    for (const node of [former, owner]) {
      const text = String(await node.direct.cluster("NODES"));
      const [self = ""] = text.split("\n").filter((line) => line.includes("myself"));
      assert.ok(claims(self, slot), `${node.address} claims the slot: ${self}`);
    }

    await until(() => {
      early.refresh();
      return early.ownerOf(BUCKET)?.name === owner.address;
    }, "the map names the new primary");
    for (const nodes of [
      [former, ...others],
      [...others, former],
    ]) {
      const map = open(nodes.map(({ address }) => address).join(","));
      late.push(map);
      await map.firstKnown;
      assert.equal(map.ownerOf(BUCKET)?.name, owner.address);
    }
  } finally {
    for (const map of [early, ...late]) map.close();
  }
});

/** Whether a line of CLUSTER NODES lists a slot. */
function claims(line: string, slot: number): boolean {
  return line
    .split(" ")
    .slice(8)
    .some((range) => {
      const [first = "", last = first] = range.split("-");
      return Number(first) <= slot && slot <= Number(last);
    });
}
