import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { setDefaultHighWaterMark } from "node:stream";
import { setTimeout as wait } from "node:timers/promises";
import type { Logger } from "pino";
import { localUrl, publicUrl } from "./address.ts";
import type { LiveView } from "./api/stock-service.ts";
import type { Config } from "./config.ts";
import type { AppOptions, Context } from "./context.ts";
import { createDemoClients } from "./demo/clients.ts";
import { type Demo, startDemo } from "./demo/demo.ts";
import { VisitorReservations } from "./demo/visitor-reservations.ts";
import { EXPIRY_ACTOR } from "./inventory/actor.ts";
import { ExpirySweeper } from "./inventory/expiry.ts";
import type { ChangeFeed } from "./inventory/feed.ts";
import type { ChangeOutbox } from "./inventory/outbox.ts";
import type { InventoryStore } from "./inventory/store.ts";
import { startEvents } from "./kafka/events.ts";
import { Releases } from "./lifecycle.ts";
import { explainListenErrors } from "./listen-error.ts";
import { Catalog } from "./live/catalog/catalog.ts";
import { addLiveMetrics, countingChanges } from "./live/metrics.ts";
import { Mirror } from "./live/mirror.ts";
import { LiveReads } from "./live/reads.ts";
import { SoldOutGate } from "./live/sold-out-gate.ts";
import { Hub } from "./live/watch/hub.ts";
import { startAdmin } from "./ops/admin.ts";
import { addBuildInfo, type BuildInfo, readBuildInfo } from "./ops/build-info.ts";
import { Health, PURPOSES, type UnreadyReasons } from "./ops/health.ts";
import { createMetrics } from "./ops/metrics.ts";
import { addProcessMetrics } from "./ops/process-metrics.ts";
import { addServiceMetrics } from "./ops/service-metrics.ts";
import { startTracing } from "./ops/tracing.ts";
import { describeEndpoint } from "./redis/connection/endpoint.ts";
import { type DemoAccess, startApi, writeLogLevel } from "./start-api.ts";
import { startStore } from "./start-store.ts";

export type { AppOptions } from "./context.ts";

/** A running server. */
export interface App {
  /** For clients on this machine: `http://127.0.0.1:8080`, with the port that was taken. */
  readonly url: string;
  /** For people: as `url`, but with an address of a network if the server listens on every address. */
  readonly publicUrl: string;
  /** URL of the port for operators. Absent unless ADMIN_PORT is set. */
  readonly adminUrl: string | undefined;
  readonly build: BuildInfo;
  /** Store and events, for people. */
  readonly backends: { readonly store: string; readonly events: string };
  /** Why the server is not ready after its start. Empty if it is. */
  readonly unreadyReasons: UnreadyReasons;
  /** A product on sale, if there is one. */
  exampleProductId(): string | undefined;
  /** Becomes unready, lets calls in flight end within the deadline, and ends everything. Later calls await the first. */
  stop(): Promise<void>;
}

/** Starts every part. If one cannot start, stops those that have started, and rejects. */
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
 * Bytes that Node buffers of a stream before its writer has to wait. Node's default of 64 KiB wastes
 * memory with many watchers that do not read; together with one watch message this stays below 32 KB.
 */
const STREAM_BUFFER_BYTES = 16 * 1024;

/** Longest wait for the catalog before the start is reported; a large one goes on loading after that. */
const FIRST_LOAD_MS_MAX = 5_000;

const ROOT = join(import.meta.dirname, "..");

async function start(config: Config, log: Logger, options: AppOptions, releases: Releases): Promise<App> {
  setDefaultHighWaterMark(false, STREAM_BUFFER_BYTES);
  const build = readBuildInfo(ROOT, config.commit);
  const context = {
    config,
    log,
    options,
    releases,
    ...(await startObservability(config, log, releases, build)),
  };
  const mirror = new Mirror();
  const { store, feed, outbox } = await startStore(context, mirror);
  const live = startLiveView(context, mirror, store, feed);
  startExpirySweeper(context, store);
  startKafka(context, store, outbox);
  const adminUrl = await startAdminServer(context);
  const demo: DemoAccess = {
    token: randomUUID(),
    visitors: config.demoReserve ? new VisitorReservations(options.visitorLimits) : undefined,
  };
  const port = await explainListenErrors(
    { ...config, variables: { host: "HOST", port: "PORT" } },
    startApi(context, store, live, demo),
  );
  const url = localUrl(config, port);
  const unreadyReasons = await checkFirstHealth(context, store, live.catalog);
  const app = {
    url,
    publicUrl: publicUrl(config, port),
    adminUrl,
    build,
    backends: describeBackends(config),
    unreadyReasons,
    exampleProductId: () => mirror.visibleIds().next().value,
    stop: stopOnce(context),
  };
  reportStart(context, app);
  await startDemoShop(context, url, demo);
  return app;
}

/** Reports the start before anything else about it, and from then on each change of readiness. */
function reportStart({ config, log, health }: Context, app: App): void {
  const isReady = app.unreadyReasons.length === 0;
  const state = isReady ? "" : `, but not ready: ${app.unreadyReasons.join("; ")}`;
  log.info({ url: app.publicUrl, ...app.build, ...app.backends }, `Listening on ${app.publicUrl}${state}`);
  if (config.access === undefined) {
    log.warn("Authentication is not configured: every client that reaches this server may change stock");
  }
  health.onChange(() => {
    const unready = PURPOSES.filter((purpose) => health.current(purpose).length > 0);
    const reasons = health.current();
    if (reasons.length === 0) {
      log.info("Ready");
    } else if (!health.isDraining) {
      log.warn({ reasons }, `Not ready for ${unready.join(" and ")}: ${reasons.join("; ")}`);
    }
  });
}

async function checkFirstHealth(
  { health }: Context,
  store: InventoryStore,
  { firstSorted }: Catalog,
): Promise<UnreadyReasons> {
  if ((await store.unreadyReason()) === undefined) {
    await Promise.race([firstSorted, wait(FIRST_LOAD_MS_MAX)]);
  }
  return await health.check();
}

async function startObservability(
  config: Config,
  log: Logger,
  releases: Releases,
  build: BuildInfo,
): Promise<Pick<Context, "health" | "metrics" | "tracing">> {
  const health = new Health(build);
  releases.push("the health checks", () => health.close());
  const tracing = config.tracing && (await startTracing(config.tracing, log));
  if (tracing !== undefined) {
    releases.push("the traces", () => tracing.stop());
  }
  const metrics = createMetrics();
  addBuildInfo(metrics.registry, build);
  return { health, metrics, tracing };
}

/** What reads from the mirror: single reads, the sorted catalog, the watches. */
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
    soldOut: new SoldOutGate({
      mirror,
      reservations: store.reservations,
      // Asking the embedded store costs no more than looking up an ID.
      ageMsMax: config.redis ? config.soldOutMs : 0,
    }),
  };
  addLiveMetrics(registry, { ...live, lowStockMax: config.page.lowStockMax });
  feed.start(countingChanges(registry, mirror));
  releases.push("the change feed", () => feed.stop());
  health.addCheck("reads", async () => {
    if (!mirror.isLoaded) return "The catalog is still loading";
    return live.catalog.isSorted ? undefined : "The catalog is being sorted";
  });
  return live;
}

function startExpirySweeper(context: Context, store: InventoryStore): void {
  const { config, log, releases, health, metrics } = context;
  const { reservations } = store;
  const countExpired = addServiceMetrics(metrics.registry, { health, reservations });
  const level = writeLogLevel(config);
  const sweeper = new ExpirySweeper({
    reservations,
    onExpired: (expired) => {
      countExpired(expired.length);
      for (const reservation of expired) {
        log[level]({ ...reservation, caller: EXPIRY_ACTOR }, "A reservation expired");
      }
    },
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

/** Resolves with the URL of the admin server, or with `undefined` if no port is set for it. */
async function startAdminServer({
  config,
  releases,
  health,
  metrics: { registry },
}: Context): Promise<string | undefined> {
  if (config.admin === undefined) return undefined;
  addProcessMetrics(registry);
  const admin = await explainListenErrors(
    { ...config.admin, variables: { host: "ADMIN_HOST", port: "ADMIN_PORT" } },
    startAdmin({ ...config.admin, registry, health }),
  );
  releases.push("the admin server", () => admin.stop());
  return admin.url;
}

/** Starts the demo, or, if the server is not ready, has it started once it is. */
async function startDemoShop(
  { config, log, options, releases, health }: Context,
  url: string,
  { token, visitors }: DemoAccess,
): Promise<void> {
  if (!config.demo) return;
  const clients = createDemoClients(url, token);
  let starting: Promise<Demo | undefined> | undefined;
  const start = async (): Promise<Demo | undefined> => {
    const started = await startDemo(clients, log, options.demoShoppers);
    visitors?.open(clients.reservations);
    return started;
  };
  if (health.current().length === 0) {
    starting = start();
    await starting;
  }
  const unsubscribe = health.onChange(() => {
    if (health.current().length > 0) return;
    starting ??= start().catch((err: unknown) => {
      log.warn({ err }, "Could not start the demo");
      return undefined;
    });
  });
  releases.push("the demo", async () => {
    unsubscribe();
    await (await starting)?.stop();
  });
}

function describeBackends(config: Config): App["backends"] {
  return {
    store: config.redis
      ? `Redis at ${describeEndpoint(config.redis)}`
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
