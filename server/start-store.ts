import type { Config } from "./config.ts";
import type { Context } from "./context.ts";
import type { ChangeFeed } from "./inventory/feed.ts";
import type { ChangeOutbox } from "./inventory/outbox.ts";
import type { InventoryStore } from "./inventory/store.ts";
import type { Mirror } from "./live/mirror.ts";
import { MemoryStore } from "./memory/store.ts";
import type { RedisEndpoint } from "./redis/connection/endpoint.ts";
import { DamagedRecords } from "./redis/damaged-records.ts";
import { RedisFeed } from "./redis/feed/feed.ts";
import type { RedisInstruments } from "./redis/instruments.ts";
import { Keys } from "./redis/keys.ts";
import { RedisMetrics } from "./redis/metrics.ts";
import { RedisOutbox } from "./redis/outbox.ts";
import { RedisStore } from "./redis/store.ts";

/** Longest wait for Redis at the start. The server then listens without it, and is not ready. */
const STORE_START_MS_MAX = 2_000;

export interface Backends {
  readonly store: InventoryStore;
  readonly feed: ChangeFeed;
  /** Absent with the embedded store, and without Kafka. */
  readonly outbox: ChangeOutbox | undefined;
}

/** Opens the configured store, and the readers of its changes. */
export async function startStore(context: Context, mirror: Mirror): Promise<Backends> {
  const { config, releases, health, metrics, tracing } = context;
  // Also with the embedded store, so that every server has the same metrics.
  const instruments = { metrics: new RedisMetrics(metrics.registry), tracing };
  const backends = config.redis
    ? await startRedisStore(context, config.redis, mirror, instruments)
    : createMemoryStore(config);
  const { store, outbox } = backends;
  releases.push("the store", () => store.close());
  if (outbox !== undefined) {
    releases.push("the outbox", () => outbox.close());
  }
  health.addCheck("writes", () => store.unreadyReason());
  return backends;
}

function createMemoryStore({ changesKept, operationRetentionMs }: Config): Backends {
  const store = new MemoryStore({ changesKept, operationRetentionMs });
  return { store, feed: store.feed, outbox: undefined };
}

async function startRedisStore(
  { config, log, health }: Context,
  endpoint: RedisEndpoint,
  mirror: Mirror,
  instruments: RedisInstruments,
): Promise<Backends> {
  const keys = new Keys(config.buckets);
  const damagedRecords = new DamagedRecords(log, instruments.metrics);
  health.addPart(damagedRecords);
  const store = new RedisStore({
    endpoint,
    log,
    keys,
    changesKept: config.changesKept,
    operationRetentionMs: config.operationRetentionMs,
    onAcknowledged: (productId, version) => mirror.expect(productId, version),
    damagedRecords,
    instruments,
  });
  health.addPart(store.replication);
  if (store.cluster !== undefined) {
    health.addPart(store.cluster);
  }
  try {
    await store.start(STORE_START_MS_MAX);
  } catch (error) {
    await store.close();
    throw error;
  }
  const outbox = config.kafka && new RedisOutbox({ endpoint, keys, log, damagedRecords, instruments });
  return { store, feed: new RedisFeed({ endpoint, keys, log, damagedRecords, instruments }), outbox };
}
