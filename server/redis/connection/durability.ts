import type { Redis } from "ioredis";
import type { Logger } from "pino";
import { countOnline, REPLICA_LAG_SECONDS_MAX } from "../mutations/acknowledgement.ts";

/** What decides whether an acknowledged change can be lost. */
export interface Durability {
  /** Settings of Redis by name, as CONFIG GET has them. */
  readonly config: Readonly<Record<string, string>>;
  /** How many replicas must have a change before its caller gets the response (REDIS_ACKS). */
  readonly acks: number;
  /** Replicas in step with the primary. */
  readonly replicas: number;
  /** Whether this is a node of a Cluster. */
  readonly isCluster?: boolean;
}

const SETTINGS = [
  "append*",
  "cluster-require-full-coverage",
  "maxmemory-policy",
  "min-replicas-*",
  "repl-ping-replica-period",
];
/** Seconds between a replica's acknowledgements, so that its lag is known in time. */
const REPL_PING_PERIOD = 1;

/** A sentence for each setting that can lose acknowledged stock, with the value to set. */
export function durabilityWarnings({ config, acks, replicas, isCluster = false }: Durability): string[] {
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
  if (isCluster && config["cluster-require-full-coverage"] === "yes") {
    warnings.push(
      "cluster-require-full-coverage is 'yes': one lost shard makes all others refuse; set 'cluster-require-full-coverage no'",
    );
  }
  return [...warnings, ...replicationWarnings({ config, acks, replicas })];
}

function replicationWarnings({ config, acks, replicas }: Durability): string[] {
  if (acks === 0) {
    return replicas === 0
      ? []
      : [
          `${replicas} replicas follow, and REDIS_ACKS is 0: a failover can lose acknowledged changes; set REDIS_ACKS=1`,
        ];
  }
  const warnings: string[] = [];
  if (replicas < acks) {
    warnings.push(
      `REDIS_ACKS is ${acks}, and ${replicas} replicas are online: mutations are refused until there are enough`,
    );
  } else if (replicas === acks) {
    warnings.push(
      `REDIS_ACKS is ${acks}, and ${replicas} replicas are online: if one fails, mutations are refused; run one more`,
    );
  }
  if (Number(config["min-replicas-to-write"] ?? 1) < 1) {
    warnings.push(
      "min-replicas-to-write is 0: a primary that was cut off from its replicas continues to accept writes; set 'min-replicas-to-write 1'",
    );
  }
  for (const [name, most] of [
    ["min-replicas-max-lag", REPLICA_LAG_SECONDS_MAX],
    ["repl-ping-replica-period", REPL_PING_PERIOD],
  ] as const) {
    const value = config[name];
    if (value !== undefined && Number(value) > most) {
      warnings.push(
        `${name} is '${value}': a disconnected replica counts as online for that long; set '${name} ${most}'`,
      );
    }
  }
  return warnings;
}

/** Logs a warning for each setting of this Redis that can lose stock, and one if the settings cannot be read. */
export async function warnOfDurability(
  client: Redis,
  acks: number,
  log: Logger,
  node?: string,
): Promise<void> {
  const replicas = countOnline(await client.info("replication"));
  const fields = node === undefined ? {} : { node };
  let reply: unknown;
  try {
    reply = await client.config("GET", ...(SETTINGS as [string, ...string[]]));
  } catch (error) {
    log.warn(
      { err: error, ...fields },
      "Redis refused CONFIG GET: its durability settings were not checked; see docs/operations.md",
    );
    return;
  }
  for (const warning of durabilityWarnings({
    config: configOf(reply),
    acks,
    replicas,
    isCluster: node !== undefined,
  })) {
    log.warn(fields, `Redis: ${warning}`);
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
