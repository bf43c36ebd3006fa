/** Reads the primaries of a Redis Cluster from one of its nodes. */
import { Redis } from "ioredis";
import type { SlotRange } from "./slots.ts";

export interface PrimaryNode {
  /** Node ID, 40 hex digits. */
  readonly id: string;
  /** host:port */
  readonly address: string;
  readonly ranges: readonly SlotRange[];
}

/** Which command moves slots atomically: all keys of a slot change their primary in one step. */
export type AtomicMigration = "valkey" | "redis" | "none";

export interface ClusterView {
  readonly primaries: readonly PrimaryNode[];
  readonly migration: AtomicMigration;
  /** Such as `Redis 7.0.15`. */
  readonly server: string;
}

const COMMAND_MS_MAX = 5_000;

/** Takes REDIS_USERNAME, REDIS_PASSWORD and REDIS_TLS from the environment. */
export async function readCluster(host: string, port: number): Promise<ClusterView> {
  const { REDIS_USERNAME, REDIS_PASSWORD, REDIS_TLS } = process.env;
  const redis = new Redis({
    ...{ host, port, lazyConnect: true, enableReadyCheck: false, maxRetriesPerRequest: 0 },
    ...{ connectTimeout: COMMAND_MS_MAX, commandTimeout: COMMAND_MS_MAX, retryStrategy: () => null },
    ...(REDIS_USERNAME === undefined ? {} : { username: REDIS_USERNAME }),
    ...(REDIS_PASSWORD === undefined ? {} : { password: REDIS_PASSWORD }),
    ...(REDIS_TLS === "on" ? { tls: {} } : {}),
  });
  redis.on("error", () => undefined);
  try {
    await redis.connect();
    const [nodes, info] = [String(await redis.call("CLUSTER", "NODES")), await redis.info("server")];
    return { primaries: parseNodes(nodes), ...versionOf(info) };
  } finally {
    redis.disconnect();
  }
}

/**
 * The primaries in a reply of CLUSTER NODES, in the order of their slots, those without slots last. Throws if a slot is
 * being moved, or a primary has failed: then slots are not to be moved.
 */
export function parseNodes(text: string): PrimaryNode[] {
  const primaries: PrimaryNode[] = [];
  for (const line of text.trim().split("\n")) {
    const [id = "", endpoint = "", flags = "", , , , , , ...slots] = line.trim().split(" ");
    const names = flags.split(",");
    if (!names.includes("master")) continue;
    const [address = ""] = endpoint.split("@");
    if (slots.some((slot) => slot.startsWith("["))) throw new Error(`A slot of ${address} is being moved`);
    if (names.some((name) => ["fail", "fail?", "handshake", "noaddr"].includes(name))) {
      if (slots.length === 0) continue;
      throw new Error(`${address} has slots and is marked ${flags}`);
    }
    const ranges = slots.map((slot) => {
      const [first = 0, last = first] = slot.split("-").map(Number);
      return { first, last };
    });
    primaries.push({ id, address, ranges });
  }
  const firstSlot = ({ ranges: [range] }: PrimaryNode): number => range?.first ?? Number.POSITIVE_INFINITY;
  return primaries.toSorted((a, b) => (firstSlot(a) < firstSlot(b) ? -1 : 1));
}

/** From INFO server. Valkey has CLUSTER MIGRATESLOTS since 9.0, Redis CLUSTER MIGRATION since 8.4. */
export function versionOf(info: string): Pick<ClusterView, "migration" | "server"> {
  const field = (name: string): string | undefined => new RegExp(`^${name}:(\\S+)`, "m").exec(info)?.[1];
  const [valkey, redis = "0.0"] = [field("valkey_version"), field("redis_version")];
  if (valkey !== undefined) {
    return { server: `Valkey ${valkey}`, migration: Number.parseInt(valkey, 10) >= 9 ? "valkey" : "none" };
  }
  const [major = 0, minor = 0] = redis.split(".").map(Number);
  const isAtomic = major > 8 || (major === 8 && minor >= 4);
  return { server: `Redis ${redis}`, migration: isAtomic ? "redis" : "none" };
}
