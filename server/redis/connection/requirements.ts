import { randomUUID } from "node:crypto";
import type { Redis } from "ioredis";
import { type Keys, LAYOUT_VERSION, UNFINISHED_COPY } from "../keys.ts";
import { RedisRequirementError } from "./client.ts";

/**
 * Checks that Redis serves: a primary in the expected mode whose data is loaded. Disconnects from a replica, which was the
 * primary before a failover.
 */
export async function checkServing(client: Redis, mode: "one primary" | "cluster"): Promise<void> {
  const info = await client.info("cluster", "replication", "persistence");
  const isCluster = info.includes("cluster_enabled:1");
  if (isCluster && mode === "one primary") {
    throw new RedisRequirementError(
      "REDIS_URL, REDIS_HOST or REDIS_SENTINELS names a node of a Redis Cluster; set REDIS_CLUSTER to some of its nodes instead",
    );
  }
  if (!isCluster && mode === "cluster") {
    throw new RedisRequirementError(
      "REDIS_CLUSTER names a node that is not in Cluster mode; set REDIS_URL to use a single Redis",
    );
  }
  if (/^loading:1/m.test(info)) {
    throw new Error("LOADING Redis is loading the dataset in memory");
  }
  if (info.includes("role:slave")) {
    client.disconnect(true);
    throw new Error("This Redis is a replica; reconnecting to find the primary");
  }
}

/** What identifies a primary in a reply of INFO: another one after a promotion and after a restart. */
export function replicationIdIn(info: string): string {
  return /^master_replid:(\w+)/m.exec(info)?.[1] ?? "";
}

/** The layout of the keys in Redis. */
export interface Layout {
  /** Identifies the data: a random ID per data set. */
  readonly dataId: string;
  /** Whether every bucket has had its marker, so that a missing one means lost data. */
  readonly hasMarkers: boolean;
}

/**
 * Checks that this Redis may be used. Rejects with `RedisRequirementError` if the keys have another layout or number of
 * buckets, and if the data is not `expectedData`. Writes the layout if there is none, and nothing else: a Redis that
 * refuses writes because its memory or disk is full can still be read. Touches one key, at the primary of bucket 0.
 */
export async function checkLayout(client: Redis, keys: Keys, expectedData?: string): Promise<Layout> {
  let layout = await readLayout(client, keys);
  if (expectedData !== undefined && layout[2] !== expectedData) {
    throw new RedisRequirementError(
      `This Redis holds ${layout[2] === null ? "no data" : `the data ${layout[2]}`}, and this server has worked with the data ${expectedData}; restore it, or restart the server to accept this Redis as it is`,
    );
  }
  if (layout.slice(0, 3).includes(null)) {
    await client.hsetnx(keys.layout(), "version", LAYOUT_VERSION);
    await client.hsetnx(keys.layout(), "buckets", keys.buckets);
    await client.hsetnx(keys.layout(), "data", randomUUID());
    layout = await readLayout(client, keys);
  }
  const [version, buckets, data, marked] = layout;
  if (version !== String(LAYOUT_VERSION)) {
    throw new RedisRequirementError(layoutRefusal(String(version)));
  }
  if (buckets !== String(keys.buckets)) {
    throw new RedisRequirementError(
      `INVENTORY_BUCKETS is ${keys.buckets}, but this Redis was laid out with ${buckets} buckets; start with INVENTORY_BUCKETS=${buckets}`,
    );
  }
  return { dataId: String(data), hasMarkers: marked === "1" };
}

function layoutRefusal(version: string): string {
  if (version === UNFINISHED_COPY) {
    return "This Redis holds an unfinished copy of a ledger; empty it and run npm run copy-ledger again";
  }
  const found = `This Redis has key layout ${version}, and this release writes layout ${LAYOUT_VERSION}`;
  return version === "2"
    ? `${found}; copy the data with npm run copy-ledger (see "Moving the data" in docs/operations.md)`
    : `${found}; run the release that belongs to the data`;
}

/** Records that every bucket has its marker. */
export async function recordMarkers(client: Redis, keys: Keys): Promise<void> {
  await client.hset(keys.layout(), "marked", "1");
}

function readLayout(client: Redis, keys: Keys): Promise<(string | null)[]> {
  return client.hmget(keys.layout(), "version", "buckets", "data", "marked");
}
