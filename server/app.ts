import { randomUUID } from "node:crypto";
import { setDefaultHighWaterMark } from "node:stream";
import { setTimeout as wait } from "node:timers/promises";
import type { Logger } from "pino";
import type { LiveView } from "./api/stock-service.ts";
import type { Config } from "./config.ts";
import type { AppOptions, Context } from "./context.ts";
import { startDemo } from "./demo/demo.ts";
import { ExpirySweeper } from "./inventory/expiry.ts";
import type { ChangeFeed } from "./inventory/feed.ts";
import type { ChangeOutbox } from "./inventory/outbox.ts";
import type { InventoryStore } from "./inventory/store.ts";
import { startEvents } from "./kafka/events.ts";
import { Releases } from "./lifecycle.ts";
import { Catalog } from "./live/catalog/catalog.ts";
import { addLiveMetrics, countingChanges } from "./live/metrics.ts";
import { Mirror } from "./live/mirror.ts";
import { LiveReads } from "./live/reads.ts";
import { Hub } from "./live/watch/hub.ts";
import { startAdmin } from "./ops/admin.ts";
import { Health } from "./ops/health.ts";
import { createMetrics } from "./ops/metrics.ts";
import { addProcessMetrics } from "./ops/process-metrics.ts";
import { addServiceMetrics } from "./ops/service-metrics.ts";
import { startTracing } from "./ops/tracing.ts";
import { startApi } from "./start-api.ts";
import { startStore } from "./start-store.ts";

export type { AppOptions } from "./context.ts";

/** A server that runs. */
export interface App {
  /** `http://127.0.0.1:8080`, with the port that was taken. */
  readonly url: string;
  /** Where operators look. Absent unless an admin port is set. */
  readonly adminUrl: string | undefined;
  /** What it runs on, for people. */
  readonly runsOn: { readonly store: string; readonly events: string };
  /** Becomes unready, lets calls in flight end within the deadline, and ends everything. The first call counts. */
  stop(): Promise<void>;
}

/** Wires and starts everything. Rejects, with every started part stopped again, when a part cannot start. */
export async function startApp(config: Config, log: Logger, options: AppOptions = {}): Promise<App> {
  const releases = new Releases();
  try {
    return await start(config, log, options, releases);
  } catch (error) {
    await releases.run();
    throw error;
  }
}

/**
 * How much Node buffers of a stream before a writer has to wait. Node's own 64 KiB, times the number of
 * watchers that do not read, wastes memory: with a message of a watch this stays below 32 KB.
 */
const STREAM_BUFFER_BYTES = 16 * 1024;

async function start(config: Config, log: Logger, options: AppOptions, releases: Releases): Promise<App> {
  setDefaultHighWaterMark(false, STREAM_BUFFER_BYTES);
  const context = { config, log, options, releases, ...(await startObservability(config, log, releases)) };
  const mirror = new Mirror();
  const { store, feed, outbox } = await startStore(context, mirror);
  const live = startLiveView(context, mirror, store, feed);
  startExpirySweeper(context, store);
  startKafka(context, store, outbox);
  const adminUrl = await startAdminServer(context);
  const demoToken = randomUUID();
  const url = await startApi(context, store, live, demoToken);
  await context.health.check();
  await startDemoShop(context, store, url, demoToken);
  return {
    url,
    adminUrl,
    runsOn: describeBackends(config),
    stop: stopOnce(context),
  };
}

async function startObservability(
  config: Config,
  log: Logger,
  releases: Releases,
): Promise<Pick<Context, "health" | "metrics" | "tracing">> {
  const health = new Health();
  releases.push("the health checks", () => health.close());
  const tracing = config.tracing && (await startTracing(config.tracing, log));
  if (tracing !== undefined) {
    releases.push("the traces", () => tracing.stop());
  }
  return { health, metrics: createMetrics(), tracing };
}

/** The mirror and what reads from it: single reads, the sorted catalog, the watches. */
function startLiveView(
  { config, options, releases, health, metrics: { registry } }: Context,
  mirror: Mirror,
  store: InventoryStore,
  feed: ChangeFeed,
): LiveView {
  const live = {
    mirror,
    reads: new LiveReads(mirror, store),
    catalog: new Catalog(mirror),
    hub: new Hub(mirror, { heartbeatMs: config.watchHeartbeatMs, ...options.watchLimits }),
  };
  addLiveMetrics(registry, { ...live, lowStockMax: config.page.lowStockMax });
  feed.start(countingChanges(registry, mirror));
  releases.push("the change feed", () => feed.stop());
  health.addCheck(async () => {
    if (!mirror.isLoaded) return "The catalog is still loading";
    return live.catalog.isSorted ? undefined : "The catalog is being sorted";
  });
  return live;
}

function startExpirySweeper({ log, releases, health, metrics }: Context, store: InventoryStore): void {
  const { reservations } = store;
  const sweeper = new ExpirySweeper({
    reservations,
    onExpired: addServiceMetrics(metrics.registry, { health, reservations }),
    onError: (error) => log.warn({ err: error }, "Could not look for expired reservations; trying again"),
  });
  releases.push("the expiry sweeper", () => sweeper.stop());
}

function startKafka(
  { config, log, releases, health, metrics, tracing }: Context,
  store: InventoryStore,
  outbox: ChangeOutbox | undefined,
): void {
  if (config.kafka === undefined) return;
  const events = startEvents({ settings: config.kafka, store, outbox, metrics, tracing, log });
  releases.push("the events", () => events.stop());
  health.addPart(events);
}

/** Resolves with the address of the admin server, where a port is set for it. */
async function startAdminServer({
  config,
  releases,
  health,
  metrics: { registry },
}: Context): Promise<string | undefined> {
  if (config.admin === undefined) return undefined;
  addProcessMetrics(registry);
  const admin = await startAdmin({ ...config.admin, registry, health });
  releases.push("the admin server", () => admin.stop());
  return admin.url;
}

async function startDemoShop(
  { config, log, releases }: Context,
  store: InventoryStore,
  url: string,
  demoToken: string,
): Promise<void> {
  if (!config.demo) return;
  const demo = await startDemo(url, demoToken, store, log);
  releases.push("the demo", () => demo.stop());
}

function describeBackends(config: Config): App["runsOn"] {
  return {
    store: config.redis
      ? `Redis at ${new URL(config.redis.url).host}`
      : "embedded, in memory: it is lost when the process ends",
    events: config.kafka ? `Kafka at ${config.kafka.brokers.join(", ")}` : "none",
  };
}

function stopOnce({ config, health, releases }: Context): () => Promise<void> {
  let stopping: Promise<void> | undefined;
  const stop = async (): Promise<void> => {
    health.startDraining();
    await wait(config.drainWaitMs);
    await releases.run();
  };
  return () => {
    stopping ??= stop();
    return stopping;
  };
}
