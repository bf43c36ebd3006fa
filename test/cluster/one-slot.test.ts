import assert from "node:assert/strict";
import { before, describe, it } from "node:test";
import { Redis } from "ioredis";
import { pino } from "pino";
import { z } from "zod";
import type { RedisEndpoint } from "../../server/redis/connection/endpoint.ts";
import { parseAddresses } from "../../server/redis/connection/settings.ts";
import { RedisFeed } from "../../server/redis/feed/feed.ts";
import { Keys } from "../../server/redis/keys.ts";
import { RedisOutbox } from "../../server/redis/outbox.ts";
import * as scripts from "../../server/redis/scripts.ts";
import { ShardedReservations } from "../../server/redis/sharded/reservations.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { need } from "../support/programs.ts";
import { startRedisCluster } from "../support/redis-cluster.ts";
import { startRedisMonitor } from "../support/redis-monitor.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { makeEveryCall } from "./every-call.ts";

/**
 * The operations that touch the buckets of an order and of its products in one script call. They run on one primary alone;
 * a Cluster has those of scripts/decisions.lua and scripts/holds.lua for them.
 */
const OVER_SEVERAL_BUCKETS = [
  "commit_reservation",
  "expire_due",
  "release_reservation",
  "reserve",
  "return_units",
];
const OPERATIONS = scripts.operationNames();
/** Which of ARGV has the operations of a batch (scripts/batch.lua). */
const OPERATIONS_ARGUMENT = 4;
const SCRIPTS = Object.entries(scripts)
  .filter(([name]) => name.endsWith("Script"))
  .map(([name, load]) => ({ name, ...(load as () => scripts.Script)() }));
const REPLAYED = ["EVAL", "EVALSHA", "HSETNX"];
/** What a node in Cluster mode replies for a second slot: for KEYS, and for a key that a script makes itself. */
const SECOND_SLOT = /hash to the same slot/;

/** What a command runs: operations of the mutation script by name, or another script. */
function describeCommand(args: readonly string[]): string[] {
  const [, script = "", keyCount = "0", ...rest] = args;
  const name = SCRIPTS.find(({ sha1, source }) => sha1 === script || source === script)?.name;
  if (name !== "mutationScript") return name === undefined ? [] : [name];
  const operations: unknown = JSON.parse(rest[Number(keyCount) + OPERATIONS_ARGUMENT] ?? "[]");
  return z
    .array(z.tuple([z.string()], z.unknown()))
    .parse(operations)
    .map(([operation]) => operation);
}

/** A command of a server, and the commands that its script ran. */
interface Recorded {
  readonly args: readonly string[];
  readonly inScript: (readonly string[])[];
}

/** Makes every call on a server. Resolves with the commands of the service's processes. */
async function recordEveryCall(server: RedisServer, endpoint: RedisEndpoint): Promise<Recorded[]> {
  await using monitor = await startRedisMonitor(server.port);
  const log = pino({ level: "silent" });
  const keys = new Keys(8);
  const options = { endpoint, keys, log };
  const [store, feed, outbox] = [new RedisStore(options), new RedisFeed(options), new RedisOutbox(options)];
  const plain = new Redis(server.url);
  try {
    await store.start(5_000);
    const putPlain = (productId: string, count: number): Promise<unknown> => plain.set(productId, count);
    await makeEveryCall({ store, feed, outbox, buckets: keys.buckets, putPlain });
    const { reservations } = store;
    if (reservations instanceof ShardedReservations) {
      // What a server that died would have left: a reservation in both sets of a bucket.
      const id = "left-behind";
      const bucket = keys.bucketOf(id);
      await plain.zadd(keys.owed(bucket), 1, id);
      await plain.zadd(keys.undecided(bucket), 1, id);
      await reservations.repair.sweep();
    }
    const recorded: Recorded[] = [];
    for (const { source, args } of await monitor.commands()) {
      if (source === "lua") recorded.at(-1)?.inScript.push(args);
      else recorded.push({ args, inScript: [] });
    }
    return recorded;
  } finally {
    plain.disconnect();
    await Promise.all([store.close(), feed.stop(), outbox.close()]);
  }
}

describe("scripts on a node in Cluster mode", { skip: need("redis-server").missing }, () => {
  /** Operations and scripts that ran, and for those that touched a second slot the reply. */
  const ran = new Set<string>();
  const crossed = new Map<string, string>();

  before(async () => {
    await using redis = await startRedis({ appendonly: "no" });
    const recorded = await recordEveryCall(redis, { url: redis.url });
    await using cluster = await startRedisCluster({ primaries: 1, appendonly: "no" });
    const direct = cluster.nodes[0]?.direct;
    assert.ok(direct);
    const send = ([name = "", ...args]: readonly string[]): Promise<unknown> =>
      direct.call(name, ...args.map((arg) => Buffer.from(arg, "latin1")));
    for (const { source } of SCRIPTS) await direct.script("LOAD", source);
    for (const { args, inScript } of recorded) {
      if (!REPLAYED.includes(args[0]?.toUpperCase() ?? "")) continue;
      const reply = JSON.stringify(await send(args).catch((error: Error) => error.message));
      const names = describeCommand(args);
      for (const name of names) ran.add(name);
      if (!SECOND_SLOT.test(reply)) continue;
      for (const name of names) crossed.set(name, reply);
      // Nothing ran. The commands of the script one by one make the state that later commands need.
      for (const command of inScript) await send(command);
    }
  });

  it("touch one slot each, except the operations of one primary alone", () => {
    assert.deepEqual([...crossed.keys()].sort(), OVER_SEVERAL_BUCKETS, JSON.stringify([...crossed]));
  });

  it("are not those of one primary alone in a Cluster", async () => {
    await using cluster = await startRedisCluster({ primaries: 1, appendonly: "no" });
    const [node] = cluster.nodes;
    assert.ok(node);
    const { server, address } = node;
    const recorded = await recordEveryCall(server, {
      cluster: { addresses: parseAddresses(address), tls: false },
    });
    const sent = new Set(recorded.flatMap(({ args }) => describeCommand(args)));
    for (const name of sent) ran.add(name);
    assert.deepEqual(
      OVER_SEVERAL_BUCKETS.filter((name) => sent.has(name)),
      [],
    );
  });

  it("have all run", () => {
    const all = [...OPERATIONS, ...SCRIPTS.map(({ name }) => name)].filter(
      (name) => name !== "mutationScript",
    );
    assert.deepEqual([...ran].sort(), all.sort());
  });
});
