import { randomUUID } from "node:crypto";
import type { Redis } from "ioredis";
import type { Logger } from "pino";
import { RedisRequirementError } from "./client.ts";
import { type Keys, LAYOUT_VERSION } from "./keys.ts";

/**
 * Checks that Redis serves: a primary, not in Cluster mode, whose data is loaded. Disconnects from a replica, which was the
 * primary before a failover.
 */
export async function checkServing(client: Redis): Promise<void> {
  const info = await client.info("cluster", "replication", "persistence");
  if (info.includes("cluster_enabled:1")) {
    throw new RedisRequirementError(
      "REDIS_URL points at a Redis Cluster, which the ledger cannot use: one reservation is one atomic step over many products; give it a single primary",
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

/**
 * Checks that this Redis may be used. Rejects with `RedisRequirementError` in Cluster mode (the lines of a reservation
 * span slots) and if the keys have another layout or number of buckets. Writes the layout if there is none, and nothing else: a Redis that refuses writes because
 * its memory or disk is full can still be read. Resolves with the ID of the data, a random one per data set.
 */
export async function checkLayout(client: Redis, keys: Keys, expectedData?: string): Promise<string> {
  await checkServing(client);
  let layout = await readLayout(client, keys);
  if (expectedData !== undefined && layout[2] !== expectedData) {
    throw new RedisRequirementError(
      `This Redis holds ${layout[2] === null ? "no data" : `the data ${layout[2]}`}, and this server has worked with the data ${expectedData}; restore it, or restart the server to accept this Redis as it is`,
    );
  }
  if (layout.includes(null)) {
    await client.hsetnx(keys.layout(), "version", LAYOUT_VERSION);
    await client.hsetnx(keys.layout(), "buckets", keys.buckets);
    await client.hsetnx(keys.layout(), "data", randomUUID());
    layout = await readLayout(client, keys);
  }
  const [version, buckets, data] = layout;
  if (buckets !== String(keys.buckets)) {
    throw new RedisRequirementError(
      `INVENTORY_BUCKETS is ${keys.buckets}, but this Redis was laid out with ${buckets} buckets; start with INVENTORY_BUCKETS=${buckets}`,
    );
  }
  if (version !== String(LAYOUT_VERSION)) {
    throw new RedisRequirementError(
      `This Redis has key layout ${version}, and this release writes layout ${LAYOUT_VERSION}; run the release that belongs to the data`,
    );
  }
  return String(data);
}

function readLayout(client: Redis, keys: Keys): Promise<(string | null)[]> {
  return client.hmget(keys.layout(), "version", "buckets", "data");
}

/** A sentence for each setting of Redis that can lose acknowledged stock, with the value to set. */
export function durabilityWarnings(config: Readonly<Record<string, string>>): string[] {
  const warnings: string[] = [];
  if (config["appendonly"] !== "yes") {
    warnings.push("appendonly is not 'yes': a restart of Redis loses stock; set 'appendonly yes'");
  } else if (config["appendfsync"] !== "always") {
    warnings.push(
      `appendfsync is '${config["appendfsync"]}': a power loss can lose acknowledged changes; set 'appendfsync always'`,
    );
  }
  const policy = config["maxmemory-policy"];
  if (policy !== undefined && policy !== "noeviction") {
    warnings.push(
      `maxmemory-policy is '${policy}': Redis may evict stock; set 'maxmemory-policy noeviction'`,
    );
  }
  return warnings;
}

/** Logs a warning for each setting of this Redis that can lose stock, and one if the settings cannot be read. */
export async function warnOfDurability(client: Redis, log: Logger): Promise<void> {
  let reply: unknown;
  try {
    reply = await client.config("GET", "append*", "maxmemory-policy");
  } catch (error) {
    log.warn(
      { err: error },
      "Redis refused CONFIG GET: its durability settings were not checked; see docs/operations.md",
    );
    return;
  }
  for (const warning of durabilityWarnings(configOf(reply))) {
    log.warn(`Redis: ${warning}`);
  }
}

function configOf(reply: unknown): Record<string, string> {
  if (!Array.isArray(reply)) {
    return Object.fromEntries(Object.entries(reply ?? {}).map(([name, value]) => [name, String(value)]));
  }
  const config: Record<string, string> = {};
  for (let i = 0; i + 1 < reply.length; i += 2) {
    config[String(reply[i])] = String(reply[i + 1]);
  }
  return config;
}
