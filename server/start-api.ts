import { createRegistry } from "@bufbuild/protobuf";
import type { ConnectRouter } from "@connectrpc/connect";
import type { Logger } from "pino";
import { ServerReflection } from "../gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "../gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { Health as HealthService } from "../gen/health/v1/health_pb.ts";
import { type CertificateObserver, createCertificateCheck } from "./access/certificates.ts";
import { JwtCheck } from "./access/jwt.ts";
import { createTokenCheck, sha256Of, type TokenEntry } from "./access/tokens.ts";
import { healthService } from "./api/health-service.ts";
import { registerReflection } from "./api/reflection-service.ts";
import {
  INVENTORY_SERVICES,
  type InventoryServices,
  inventoryServices,
  SERVICE_PURPOSES,
} from "./api/services.ts";
import type { LiveView } from "./api/stock-service.ts";
import { watchStockMethod } from "./api/watch-fast-path.ts";
import type { Config } from "./config.ts";
import type { Context } from "./context.ts";
import { DEMO_SHOP_NAME } from "./demo/catalog.ts";
import { DEMO_PICTURES } from "./demo/pictures.ts";
import { createVisitorEndpoint } from "./demo/visitor-endpoint.ts";
import type { VisitorReservations } from "./demo/visitor-reservations.ts";
import { externalNetworkOf } from "./http/client-network.ts";
import { createCors, createCorsHeaders } from "./http/cors.ts";
import { LISTENER_LIMITS_DEFAULT } from "./http/listener/limits.ts";
import { type Listener, startListener } from "./http/listener/listener.ts";
import { addConnectionMetrics, createRequestCount } from "./http/metrics.ts";
import { createRouter } from "./http/router.ts";
import { TrustedProxies } from "./http/trusted-proxies.ts";
import type { InventoryStore } from "./inventory/store.ts";
import { createBatchCount } from "./ops/batch-metrics.ts";
import { LoopDelay } from "./ops/loop-delay.ts";
import { createPages, type PageSettings } from "./pages/pages.ts";
import { type CallMiddleware, CallPipeline } from "./rpc/call.ts";
import { createConnectHandler } from "./rpc/connect-handler.ts";
import { ERROR_DETAILS } from "./rpc/errors.ts";
import type { FastPath } from "./rpc/fast-path/fast-path.ts";
import { fastPathMethods, type ImplementedService } from "./rpc/fast-path/methods.ts";
import { StreamFastPath } from "./rpc/fast-path/stream-fast-path.ts";
import { UnaryFastPath } from "./rpc/fast-path/unary-fast-path.ts";
import { deadlineInterceptor } from "./rpc/interceptors/deadline.ts";
import { drainInterceptor } from "./rpc/interceptors/drain.ts";
import { createErrorReporter, errorInterceptor } from "./rpc/interceptors/errors.ts";
import { accessMiddleware } from "./rpc/middleware/access.ts";
import { createCertificateObserver } from "./rpc/middleware/certificate-observer.ts";
import { limitsMiddleware } from "./rpc/middleware/limits.ts";
import { codeName, metricsMiddleware } from "./rpc/middleware/metrics.ts";
import { tracingMiddleware } from "./rpc/middleware/tracing.ts";
import { writeLogMiddleware } from "./rpc/middleware/write-log.ts";
import { refuseInProtocol, refuseUnknownMethod } from "./rpc/refusals.ts";
import { createRpcHandler } from "./rpc/rpc-handler.ts";

/** Methods whose streams have no time limit. */
const LONG_LIVED_PATHS: ReadonlySet<string> = new Set(
  [HealthService, ServerReflection, ServerReflectionAlpha, ...INVENTORY_SERVICES].flatMap((service) =>
    service.methods
      .filter((method) => method.methodKind !== "unary")
      .map((method) => `/${service.typeName}/${method.name}`),
  ),
);

/** The errors of a batch have their details in `google.protobuf.Any`, whose JSON needs the types. */
const JSON_OPTIONS = { registry: createRegistry(...ERROR_DETAILS) };

/** What the demo needs of the port. */
export interface DemoAccess {
  /** Authenticates the demo itself, where authentication is configured. */
  readonly token: string;
  /** Absent unless visitors may reserve. */
  readonly visitors: VisitorReservations | undefined;
}

/** Starts the port and what serves its requests. Resolves with the port once it accepts connections. */
export async function startApi(
  context: Context,
  store: InventoryStore,
  live: LiveView,
  demo: DemoAccess,
): Promise<number> {
  const { config, log, options, releases, health, metrics, tracing } = context;
  const proxies = new TrustedProxies(config.trustedProxies);
  const pipeline = createCallPipeline(context, proxies, demo.token);
  const onNonRpcResponse = createRequestCount(metrics.registry);
  const draining = new AbortController();
  const reportError = createErrorReporter(log);
  const count = createBatchCount(metrics.registry, codeName);
  const services = inventoryServices(store, live, { reportError, count, tracing });
  const {
    services: extraServices = [],
    streamMethods = [],
    json = JSON_OPTIONS,
    requestBytesMax,
  } = options.extraApi ?? {};
  const requestOptions = { json, ...(requestBytesMax && { requestBytesMax }) };
  const connectHandler = createConnectHandler({
    routes: (router) => registerServices(router, services, extraServices, context),
    pipeline,
    interceptors: [errorInterceptor(reportError), drainInterceptor(draining.signal), deadlineInterceptor],
    log,
    onNonRpcResponse,
    ...requestOptions,
  });
  const corsHeaders = createCorsHeaders(config.embedOrigins);
  const shared = { connectHandler, pipeline, reportError, ...requestOptions };
  const fastPaths: FastPath[] = config.fastPath
    ? [
        new UnaryFastPath({ ...shared, methods: fastPathMethods([...services.all, ...extraServices], json) }),
        new StreamFastPath({ ...shared, methods: [watchStockMethod(live), ...streamMethods], corsHeaders }),
      ]
    : [];
  const listener = await startListener({
    host: config.host,
    port: config.port,
    handler: createRouter({
      health,
      rpc: createRpcHandler({ fastPaths, connectHandler, onNonRpcResponse }),
      unknownMethod: refuseUnknownMethod,
      pages: createPages({
        catalog: live.catalog,
        settings: pageSettings(config),
      }),
      demo: demo.visitors && createVisitorEndpoint({ visitors: demo.visitors, proxies }),
      cors: createCors(corsHeaders),
      onNonRpcResponse,
    }),
    refuse: (request, response, refusal) => {
      onNonRpcResponse(refusal.status);
      refuseInProtocol(request, response, refusal);
    },
    isTrustedGateway: (address) => proxies.includes(address),
    tryHandleStream: (stream, headers, rawHeaders) =>
      fastPaths.some((fastPath) => fastPath.tryHandleStream(stream, headers, rawHeaders)),
    isLongLived: (path) => LONG_LIVED_PATHS.has(path),
    networkOf: externalNetworkOf,
    log,
    tls: config.tls,
    ...(options.limits && { limits: options.limits }),
  });
  releases.push("the listener", async () => {
    live.hub.drain();
    draining.abort();
    await drainListener(listener, context);
  });
  addConnectionMetrics(metrics.registry, {
    open: () => listener.connections(),
    most: { ...LISTENER_LIMITS_DEFAULT, ...options.limits }.connectionsMax,
  });
  return listener.port;
}

function pageSettings({ page, watchHeartbeatMs, demo, demoReserve }: Config): Partial<PageSettings> {
  return {
    ...page,
    heartbeatMs: watchHeartbeatMs,
    ...(demo && {
      shopName: page.shopName ?? DEMO_SHOP_NAME,
      demo: { pictures: DEMO_PICTURES, canReserve: demoReserve },
    }),
  };
}

function registerServices(
  router: ConnectRouter,
  services: InventoryServices,
  extraServices: readonly ImplementedService[],
  { config, health }: Context,
): void {
  services.register(router);
  for (const { desc, implementation } of extraServices) {
    router.service(desc, implementation);
  }
  router.service(HealthService, healthService(health, SERVICE_PURPOSES));
  if (config.reflection) {
    registerReflection(router, [...INVENTORY_SERVICES, HealthService], ERROR_DETAILS);
  }
}

async function drainListener(listener: Listener, { config, log }: Context): Promise<void> {
  const { destroyed } = await listener.drain(config.drainMsMax);
  if (destroyed > 0) {
    log.warn({ destroyed }, "Connections were closed at the end of the drain deadline");
  }
}

/** The middleware of every call, outermost first. */
function createCallPipeline(
  { config, log, releases, metrics, tracing }: Context,
  proxies: TrustedProxies,
  demoToken: string,
): CallPipeline {
  const loopDelay = new LoopDelay();
  releases.push("the event-loop monitor", () => loopDelay.stop());
  return new CallPipeline(
    [
      // Without an admin port nothing can read the metrics.
      ...(config.admin ? [metricsMiddleware(metrics.registry, INVENTORY_SERVICES)] : []),
      ...(tracing ? [tracingMiddleware(tracing)] : []),
      // The demo's shoppers buy all the time, and their lines would fill the log.
      writeLogMiddleware(log, config.demo ? "debug" : "info"),
      limitsMiddleware(config.callLimits, loopDelay),
      ...accessMiddlewares(config, log, createCertificateObserver(metrics.registry, log), demoToken),
    ],
    proxies,
  );
}

/** Authentication and authorization, where they are configured. The demo shop authenticates like any other caller. */
function accessMiddlewares(
  config: Config,
  log: Logger,
  certificateObserver: CertificateObserver,
  demoToken: string,
): CallMiddleware[] {
  const { access } = config;
  if (access === undefined) {
    return [];
  }
  const ofDemo: TokenEntry = { name: "demo", role: "ops", sha256: sha256Of(demoToken) };
  const tokens = config.demo ? [...access.tokens, ofDemo] : access.tokens;
  const checks = {
    token: tokens.length > 0 ? createTokenCheck(tokens) : undefined,
    jwt:
      access.jwt &&
      new JwtCheck(access.jwt, (err) =>
        log.warn({ err }, "Could not fetch the issuer's keys; the last ones stay valid for four hours"),
      ),
    certificate:
      access.certificates.length > 0
        ? createCertificateCheck(access.certificates, certificateObserver)
        : undefined,
  };
  return [accessMiddleware(checks, log)];
}
