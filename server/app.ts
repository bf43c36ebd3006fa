import { randomUUID } from "node:crypto";
import { setDefaultHighWaterMark } from "node:stream";
import { setTimeout as wait } from "node:timers/promises";
import type { Logger } from "pino";
import { ServerReflection } from "../gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "../gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { Health as HealthService } from "../gen/health/v1/health_pb.ts";
import { createCertificateCheck } from "./access/certificates.ts";
import { JwtCheck } from "./access/jwt.ts";
import { createTokenCheck, sha256Of, type TokenEntry } from "./access/tokens.ts";
import type { Config } from "./config.ts";
import { startDemo } from "./demo/demo.ts";
import { ExpirySweeper } from "./inventory/expiry.ts";
import type { ChangeFeed } from "./inventory/feed.ts";
import type { ChangeOutbox } from "./inventory/outbox.ts";
import type { InventoryStore } from "./inventory/store.ts";
import { startEvents } from "./kafka/events.ts";
import { Releases } from "./lifecycle.ts";
import { Catalog } from "./live/catalog/catalog.ts";
import { Hub, type WatchLimits } from "./live/watch/hub.ts";
import { addLiveMetrics, countingChanges } from "./live/metrics.ts";
import { Mirror } from "./live/mirror.ts";
import { LiveReads } from "./live/reads.ts";
import { MemoryStore } from "./memory/store.ts";
import { startAdmin } from "./ops/admin.ts";
import { Health } from "./ops/health.ts";
import { LoopDelay } from "./ops/loop-delay.ts";
import { createMetrics } from "./ops/metrics.ts";
import { addProcessMetrics } from "./ops/process-metrics.ts";
import { addServiceMetrics } from "./ops/service-metrics.ts";
import { startTracing } from "./ops/tracing.ts";
import { RedisFeed } from "./redis/feed.ts";
import type { RedisInstruments } from "./redis/instruments.ts";
import { Keys } from "./redis/keys.ts";
import { RedisMetrics } from "./redis/metrics.ts";
import { RedisOutbox } from "./redis/outbox.ts";
import { RedisStore } from "./redis/store.ts";
import { type CallStage, Gate } from "./rpc/call.ts";
import { outsideNetworkOf } from "./http/client-network.ts";
import { createConnectHandler } from "./rpc/connect-handler.ts";
import { createCors, createCorsHeaders } from "./http/cors.ts";
import { createFront } from "./http/router.ts";
import { healthService } from "./api/health-service.ts";
import { addConnectionMetrics, createRequestCount } from "./http/metrics.ts";
import { deadlineInterceptor } from "./rpc/interceptors/deadline.ts";
import { drainInterceptor } from "./rpc/interceptors/drain.ts";
import { createTellError, errorInterceptor } from "./rpc/interceptors/errors.ts";
import type { Lane } from "./rpc/fast-path/fast-path.ts";
import { laneMethods } from "./rpc/fast-path/methods.ts";
import { UnaryLane } from "./rpc/fast-path/unary-fast-path.ts";
import { WatchLane } from "./api/watch-fast-path.ts";
import { LISTENER_LIMITS_DEFAULT, type ListenerLimits, startListener } from "./http/listener.ts";
import { createPages } from "./pages/pages.ts";
import { registerReflection } from "./api/reflection-service.ts";
import { INVENTORY_SERVICES, inventoryServices } from "./api/services.ts";
import { accessStage } from "./rpc/middleware/access.ts";
import { limitsStage } from "./rpc/middleware/limits.ts";
import { metricsStage } from "./rpc/middleware/metrics.ts";
import { tracingStage } from "./rpc/middleware/tracing.ts";
import { writeLogStage } from "./rpc/middleware/write-log.ts";
import { TrustedProxies } from "./http/trusted-proxies.ts";

/** How long the start waits for Redis before it serves without it, unready. */
const STORE_START_MS_MAX = 2_000;

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

/** What a test may replace. */
export interface AppOptions {
  readonly limits?: Partial<ListenerLimits>;
  readonly watchLimits?: Partial<WatchLimits>;
}

/** Methods whose stream a client may hold open for as long as it likes. */
const LONG_LIVED_PATHS: ReadonlySet<string> = new Set(
  [HealthService, ServerReflection, ServerReflectionAlpha, ...INVENTORY_SERVICES].flatMap((service) =>
    service.methods
      .filter((method) => method.methodKind !== "unary")
      .map((method) => `/${service.typeName}/${method.name}`),
  ),
);

/** Wires and starts everything. Rejects, with all that had been started ended again, where a part cannot start. */
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
 * watchers that do not read, is memory for nothing: with a message of a watch this stays below 32 KB.
 */
const STREAM_BUFFER_BYTES = 16 * 1024;

async function start(config: Config, log: Logger, options: AppOptions, releases: Releases): Promise<App> {
  setDefaultHighWaterMark(false, STREAM_BUFFER_BYTES);
  const health = new Health();
  releases.push("the health checks", () => health.close());

  const tracing = config.tracing && (await startTracing(config.tracing, log));
  if (tracing !== undefined) {
    releases.push("the traces", () => tracing.stop());
  }
  const metrics = createMetrics();
  const { registry } = metrics;

  const mirror = new Mirror();
  const instruments = { metrics: new RedisMetrics(registry), tracing };
  const { store, feed, outbox } = await startStore(config, log, mirror, instruments);
  releases.push("the store", () => store.close());
  if (outbox !== undefined) {
    releases.push("the outbox", () => outbox.close());
  }
  health.addCheck(() => store.unreadyReason());
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
  const sweeper = new ExpirySweeper({
    reservations: store.reservations,
    onExpired: addServiceMetrics(registry, { health, reservations: store.reservations }),
    onError: (error) => log.warn({ err: error }, "Could not look for expired reservations; trying again"),
  });
  releases.push("the expiry sweeper", () => sweeper.stop());

  if (config.kafka !== undefined) {
    const events = startEvents({ settings: config.kafka, store, outbox, metrics, tracing, log });
    releases.push("the events", () => events.stop());
    health.addPart(events);
  }
  let adminUrl: string | undefined;
  if (config.admin !== undefined) {
    addProcessMetrics(registry);
    const admin = await startAdmin({ ...config.admin, registry, health });
    releases.push("the admin server", () => admin.stop());
    adminUrl = admin.url;
  }

  const loopDelay = new LoopDelay();
  releases.push("the look at the event loop", () => loopDelay.stop());
  const demoToken = randomUUID();
  const gate = new Gate(
    [
      // Where nobody can ask for them, calls are not counted.
      ...(config.admin ? [metricsStage(registry, INVENTORY_SERVICES)] : []),
      ...(tracing ? [tracingStage(tracing)] : []),
      // The demo's shoppers buy all the time: they would hide everything else.
      writeLogStage(log, config.demo ? "debug" : "info"),
      limitsStage(config.callLimits, loopDelay),
      ...accessStages(config, log, demoToken),
    ],
    new TrustedProxies(config.trustedProxies),
  );
  const onNoCall = createRequestCount(registry);
  const draining = new AbortController();
  const services = inventoryServices(store, live);
  const tellError = createTellError(log);
  const methods = createConnectHandler({
    routes: (router) => {
      services.register(router);
      router.service(
        HealthService,
        healthService(
          health,
          INVENTORY_SERVICES.map((service) => service.typeName),
        ),
      );
      if (config.reflection) {
        registerReflection(router, [...INVENTORY_SERVICES, HealthService]);
      }
    },
    gate,
    interceptors: [errorInterceptor(tellError), drainInterceptor(draining.signal), deadlineInterceptor],
    log,
    onNoCall,
  });
  const corsHeaders = createCorsHeaders(config.embedOrigins);
  const shared = { longWay: methods, gate, tellError };
  const lanes: Lane[] = config.lane
    ? [
        new UnaryLane({ ...shared, methods: laneMethods(services.all) }),
        new WatchLane({ ...shared, live, corsHeaders }),
      ]
    : [];
  const listener = await startListener({
    host: config.host,
    port: config.port,
    handler: createFront({
      health,
      methods,
      pages: createPages({
        catalog: live.catalog,
        settings: { ...config.page, heartbeatMs: config.watchHeartbeatMs },
      }),
      cors: createCors(corsHeaders),
      lanes,
      onNoCall,
    }),
    takeStream: (stream, headers, rawHeaders) =>
      lanes.some((lane) => lane.takeStream(stream, headers, rawHeaders)),
    isLongLived: (path) => LONG_LIVED_PATHS.has(path),
    networkOf: outsideNetworkOf,
    log,
    tls: config.tls,
    ...(options.limits && { limits: options.limits }),
  });
  addConnectionMetrics(registry, {
    open: () => listener.connections(),
    most: { ...LISTENER_LIMITS_DEFAULT, ...options.limits }.connectionsMax,
  });
  const url = urlOf(config, listener.port);
  releases.push("the listener", async () => {
    live.hub.drain();
    draining.abort();
    const { destroyed } = await listener.drain(config.drainMsMax);
    if (destroyed > 0) {
      log.warn({ destroyed }, "Connections were cut at the end of the drain deadline");
    }
  });
  await health.check();

  if (config.demo) {
    const demo = await startDemo(url, demoToken, store, log);
    releases.push("the demo", () => demo.stop());
  }

  let stopping: Promise<void> | undefined;
  const stop = async (): Promise<void> => {
    health.startDraining();
    await wait(config.drainWaitMs);
    await releases.run();
  };
  return {
    url,
    adminUrl,
    runsOn: {
      store: config.redis
        ? `Redis at ${new URL(config.redis.url).host}`
        : "embedded, in memory: it forgets when it ends",
      events: config.kafka ? `Kafka at ${config.kafka.brokers.join(", ")}` : "none",
    },
    stop: () => {
      stopping ??= stop();
      return stopping;
    },
  };
}

/** Who may call, where that is set. The demo shop is a caller like any other. */
function accessStages(config: Config, log: Logger, demoToken: string): CallStage[] {
  const { access } = config;
  if (access === undefined) {
    log.warn("Anybody who reaches this server may change stock: callers are not asked who they are");
    return [];
  }
  const ofDemo: TokenEntry = { name: "demo", role: "ops", sha256: sha256Of(demoToken) };
  const tokens = config.demo ? [...access.tokens, ofDemo] : access.tokens;
  const checks = {
    token: tokens.length > 0 ? createTokenCheck(tokens) : undefined,
    jwt:
      access.jwt &&
      new JwtCheck(access.jwt, (err) =>
        log.warn({ err }, "The issuer's keys cannot be had; those fetched last go on for four hours"),
      ),
    certificate: access.certificates.length > 0 ? createCertificateCheck(access.certificates) : undefined,
  };
  return [accessStage(checks, log)];
}

async function startStore(
  config: Config,
  log: Logger,
  mirror: Mirror,
  instruments: RedisInstruments,
): Promise<{ store: InventoryStore; feed: ChangeFeed; outbox: ChangeOutbox | undefined }> {
  const { operationRetentionMs } = config;
  if (config.redis === undefined) {
    const store = new MemoryStore({ operationRetentionMs });
    return { store, feed: store.feed, outbox: undefined };
  }
  const endpoint = config.redis;
  const keys = new Keys(config.buckets);
  const store = new RedisStore({
    endpoint,
    log,
    keys,
    operationRetentionMs,
    onAcknowledged: (productId, version) => mirror.expect(productId, version),
    instruments,
  });
  try {
    await store.start(STORE_START_MS_MAX);
  } catch (error) {
    await store.close();
    throw error;
  }
  const outbox = config.kafka && new RedisOutbox({ endpoint, keys, log, instruments });
  return { store, feed: new RedisFeed({ endpoint, keys, log, instruments }), outbox };
}

function urlOf(config: Config, port: number): string {
  const host = config.host === "0.0.0.0" || config.host === "::" ? "localhost" : config.host;
  return `${config.tls ? "https" : "http"}://${host.includes(":") ? `[${host}]` : host}:${port}`;
}
