import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { pino } from "pino";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { readConfig } from "../../server/config.ts";
import { startAppProcess, startTestApp, type TestApp } from "../support/app.ts";
import { freePort } from "../support/free-port.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { type CollectedSpan, startTraceCollector, type TraceCollector } from "../support/trace-collector.ts";
import { until } from "../support/until.ts";

const SERVER = 2;
const CLIENT = 3;
const ERROR = 2;

/** A client's trace context: a new trace, and the span that its call belongs to. */
function context(n: number, flags = "01"): { traceId: string; spanId: string; traceparent: string } {
  const traceId = n.toString(16).padStart(32, "a");
  const spanId = n.toString(16).padStart(16, "b");
  return { traceId, spanId, traceparent: `00-${traceId}-${spanId}-${flags}` };
}

function clients(baseUrl: string) {
  const transport = createGrpcTransport({ baseUrl });
  return {
    stock: createClient(StockService, transport),
    supply: createClient(SupplyService, transport),
    reservations: createClient(ReservationService, transport),
  };
}

describe("traces", { skip: need("redis-server").missing }, () => {
  let redis: RedisServer;
  let collector: TraceCollector;
  let app: TestApp;
  const lines: string[] = [];

  before(async () => {
    redis = await startRedis();
    collector = await startTraceCollector();
    const environment = {
      REDIS_URL: redis.url,
      OTEL_EXPORTER_OTLP_ENDPOINT: `${collector.endpoint}/`,
      OTEL_SERVICE_NAME: "inventory-of-test",
      OTEL_BSP_SCHEDULE_DELAY: "20",
    };
    app = await startTestApp(environment, { log: pino({}, { write: (line: string) => lines.push(line) }) });
    await clients(app.url).supply.putProduct({ productId: "p1", declared: 1_000 });
  });
  after(async () => {
    await app?.stop();
    await collector?.[Symbol.asyncDispose]();
    await redis?.stop();
  });

  function spanOf(traceId: string, name: string): Promise<CollectedSpan> {
    return until(
      () => collector.spans.find((span) => span.traceId === traceId && span.name === name),
      `${name} of ${traceId} has arrived`,
    );
  }

  it("continue the client's trace on the fast path and in Redis commands", async () => {
    const { traceId, spanId, traceparent } = context(1);
    const request = { reservationId: "order-1", lines: [{ productId: "p1", quantity: 1 }] };
    await clients(app.url).reservations.reserve(request, { headers: { traceparent } });

    const call = await spanOf(traceId, "inventory.v1.ReservationService/Reserve");
    assert.equal(call.service, "inventory-of-test");
    assert.equal(call.parentSpanId, spanId);
    assert.equal(call.kind, SERVER);
    assert.equal(call.attributes["rpc.system.name"], "grpc");
    assert.equal(call.attributes["rpc.method"], "inventory.v1.ReservationService/Reserve");
    assert.equal(call.attributes["rpc.status_code"], "OK");
    assert.equal(call.attributes["client.address"], "127.0.0.1");
    assert.equal(call.status, 0);
    const step = await spanOf(traceId, "redis reserve");
    assert.equal(step.parentSpanId, call.spanId);
    assert.equal(step.kind, CLIENT);
    assert.equal(step.attributes["db.system.name"], "redis");
    assert.equal(step.attributes["db.operation.name"], "reserve");
    // The batch may include a sweep for expired reservations.
    assert.match(`${step.attributes["db.operation.batch.size"]}`, /^[12]$/);
    assert.deepEqual(step.events, ["sent"]);
  });

  it("continue the client's trace on the Connect path", async () => {
    const { traceId, spanId, traceparent } = context(2);
    const response = await fetch(`${app.url}/inventory.v1.SupplyService/GetLedger`, {
      method: "POST",
      // The fast path does not take compressed requests.
      headers: { "content-type": "application/json", "content-encoding": "gzip", traceparent },
      body: gzipSync(JSON.stringify({ productId: "p1" })),
    });
    assert.equal(response.status, 200);
    const call = await spanOf(traceId, "inventory.v1.SupplyService/GetLedger");
    assert.equal(call.parentSpanId, spanId);
    assert.equal(call.attributes["rpc.system.name"], "connectrpc");
    assert.equal((await spanOf(traceId, "redis read_product")).parentSpanId, call.spanId);
  });

  it("stay separate when operations share a batch", async () => {
    const { reservations } = clients(app.url);
    const contexts = Array.from({ length: 40 }, (_, n) => context(100 + n));
    await Promise.all(
      contexts.map(({ traceId, traceparent }) =>
        reservations.reserve(
          { reservationId: `order-${traceId}`, lines: [{ productId: "p1", quantity: 1 }] },
          { headers: { traceparent } },
        ),
      ),
    );
    let largest = 0;
    for (const { traceId } of contexts) {
      const call = await spanOf(traceId, "inventory.v1.ReservationService/Reserve");
      const step = await spanOf(traceId, "redis reserve");
      assert.equal(step.parentSpanId, call.spanId);
      largest = Math.max(largest, Number(step.attributes["db.operation.batch.size"]));
      assert.equal(collector.spans.filter((span) => span.traceId === traceId).length, 2);
    }
    assert.ok(largest > 1, "no two operations shared a batch");
  });

  it("mark server errors, and not client errors, as errors", async () => {
    const { traceId, traceparent } = context(3);
    const headers = { traceparent };
    await assert.rejects(clients(app.url).stock.getStock({ productId: "none" }, { headers }));
    const notFound = await spanOf(traceId, "inventory.v1.StockService/GetStock");
    assert.equal(notFound.attributes["rpc.status_code"], "NOT_FOUND");
    assert.equal(notFound.status, 0);

    redis.pause();
    const failing = context(4);
    const adjustment = { productId: "p1", delta: 1, adjustmentId: "a1", reason: "found" };
    const failed = clients(app.url).supply.adjustStock(adjustment, {
      headers: { traceparent: failing.traceparent },
    });
    await assert.rejects(failed).finally(() => redis.resume());
    const fault = await spanOf(failing.traceId, "inventory.v1.SupplyService/AdjustStock");
    assert.equal(fault.attributes["error.type"], "UNAVAILABLE");
    assert.equal(fault.status, ERROR);
    const step = await spanOf(failing.traceId, "redis adjust_stock");
    assert.equal(step.attributes["error.type"], "STORE_UNAVAILABLE");
  });

  it("start a new trace for an invalid context, and record nothing for an unsampled one", async () => {
    const { stock } = clients(app.url);
    const left = context(5, "00");
    await stock.getStock({ productId: "p1" }, { headers: { traceparent: left.traceparent } });
    const malformed = `00-${"0".repeat(32)}-${"b".repeat(16)}-01`;
    const known = new Set(collector.spans.map((span) => span.spanId));
    await stock.getStock({ productId: "p1" }, { headers: { traceparent: malformed } });
    const own = await until(
      () => collector.spans.find((span) => !known.has(span.spanId) && span.name.endsWith("/GetStock")),
      "a trace of its own",
    );
    assert.equal(own.parentSpanId, "");
    assert.notEqual(own.traceId, "0".repeat(32));
    assert.ok(!collector.spans.some((span) => span.traceId === left.traceId));
  });

  it("have one span for a batch, and the log a line for it and one for each request", async () => {
    const { traceId, traceparent } = context(7);
    const headers = { traceparent, "x-request-id": "req-7" };
    const requests = [
      { productId: "p1", delta: 1, adjustmentId: "b1" },
      { productId: "" },
      { productId: "p0" },
    ];
    await clients(app.url).supply.batchAdjustStock({ requests }, { headers });
    const span = await spanOf(traceId, "inventory.v1.SupplyService/BatchAdjustStock");
    assert.equal(Number(span.attributes["inventory.batch.requests"]), 3);
    assert.equal(Number(span.attributes["inventory.batch.failed"]), 2);
    // A later call of the same client: what the batch had below its span would have arrived before.
    const later = context(8);
    await clients(app.url).supply.setSafetyStock(
      { productId: "p1", safety: 0 },
      { headers: { traceparent: later.traceparent } },
    );
    await spanOf(later.traceId, "redis set_safety_stock");
    assert.equal(collector.spans.filter((each) => each.traceId === traceId).length, 1);
    const written = lines.filter((each) => each.includes("req-7")).map((each) => JSON.parse(each));
    assert.deepEqual(
      written.map(({ msg, code, requests: count, failed, index }) => [msg, code, count ?? index, failed]),
      [
        ["write", "OK", 3, 2],
        ["write in a batch", "OK", 0, undefined],
        ["write in a batch", "InvalidArgument", 1, undefined],
        ["write in a batch", "InvalidArgument", 2, undefined],
      ],
    );
  });

  it("are referenced by the log of writes", async () => {
    const { traceId, traceparent } = context(6);
    const headers = { traceparent, "x-request-id": "req-6" };
    await clients(app.url).supply.setSafetyStock({ productId: "p1", safety: 1 }, { headers });
    const line = await until(() => lines.find((each) => each.includes("req-6")), "the line is written");
    const { msg, requestId, traceId: logged } = JSON.parse(line) as Record<string, unknown>;
    assert.deepEqual({ msg, requestId, logged }, { msg: "write", requestId: "req-6", logged: traceId });
  });
});

describe("an unavailable collector", () => {
  it("causes one log line and fails no call", async () => {
    const lines: string[] = [];
    const log = pino({}, { write: (line: string) => lines.push(line) });
    const endpoint = `http://127.0.0.1:${await freePort()}`;
    await using app = await startTestApp(
      { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, OTEL_BSP_SCHEDULE_DELAY: "20" },
      { log },
    );
    await clients(app.url).supply.putProduct({ productId: "p1", declared: 1 });
    const warnings = (): number => lines.filter((line) => line.includes("Export of traces failed")).length;
    await until(() => warnings() === 1, "the outage is logged");
    await clients(app.url).stock.getStock({ productId: "p1" });
    await app.stop();
    assert.equal(warnings(), 1);
  });
});

describe("settings of traces", () => {
  const OTEL_EXPORTER_OTLP_ENDPOINT = "http://127.0.0.1:4318";

  it("have OpenTelemetry's names and defaults", () => {
    assert.equal(readConfig({}).tracing, undefined);
    const defaults = readConfig({ OTEL_EXPORTER_OTLP_ENDPOINT }).tracing;
    const endpoint = OTEL_EXPORTER_OTLP_ENDPOINT;
    const sampler = "parentbased_always_on";
    assert.deepEqual(defaults, {
      endpoint,
      serviceName: "inventory",
      sampler,
      ratio: 1,
      exportIntervalMs: 2_000,
    });
    const given = { OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER_ARG: "0.01" };
    assert.equal(readConfig(given).tracing?.ratio, 0.01);
  });

  it("are validated", () => {
    const wrong = {
      OTEL_EXPORTER_OTLP_ENDPOINT: "collector:4317",
      OTEL_TRACES_SAMPLER: "some",
      OTEL_TRACES_SAMPLER_ARG: "2",
    };
    for (const [name, value] of Object.entries(wrong)) {
      const message = new RegExp(`${name} is ${JSON.stringify(value)}; must be`);
      assert.throws(() => readConfig({ OTEL_EXPORTER_OTLP_ENDPOINT, [name]: value }), message, name);
    }
  });
});

describe("samplers", () => {
  it("drop the traces that their configuration excludes", async () => {
    await using collector = await startTraceCollector();
    const sampled = async (sampler: string, arg: string, flags: string | undefined): Promise<number> => {
      const before = collector.spans.length;
      const app = await startTestApp({
        OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint,
        OTEL_TRACES_SAMPLER: sampler,
        OTEL_TRACES_SAMPLER_ARG: arg,
      });
      const headers = flags === undefined ? {} : { traceparent: context(7, flags).traceparent };
      await clients(app.url).supply.putProduct({ productId: "p1", declared: 1 }, { headers });
      await app.stop();
      return collector.spans.length - before;
    };
    assert.equal(await sampled("always_on", "1", "00"), 1);
    assert.equal(await sampled("always_off", "1", "01"), 0);
    assert.equal(await sampled("traceidratio", "0", "01"), 0);
    assert.equal(await sampled("traceidratio", "1", undefined), 1);
    assert.equal(await sampled("parentbased_always_on", "1", "00"), 0);
    assert.equal(await sampled("parentbased_always_off", "1", undefined), 0);
    assert.equal(await sampled("parentbased_always_off", "1", "01"), 1);
    assert.equal(await sampled("parentbased_traceidratio", "0", undefined), 0);
    assert.equal(await sampled("parentbased_traceidratio", "0", "01"), 1);
  });
});

describe("OpenTelemetry", () => {
  /** The modules that a server has loaded, as a hook records them. */
  async function loadedBy(environment: NodeJS.ProcessEnv): Promise<string[]> {
    const dir = await mkdtemp(join(tmpdir(), "inventory-loaded-"));
    const [hook, list] = [join(dir, "hook.mjs"), join(dir, "loaded")];
    await writeFile(
      hook,
      `import { appendFileSync } from "node:fs";
      import { registerHooks } from "node:module";
      registerHooks({
        load(url, context, next) {
          appendFileSync(${JSON.stringify(list)}, url + "\\n");
          return next(url, context);
        },
      });`,
    );
    try {
      await using app = await startAppProcess({ ...environment, NODE_OPTIONS: `--import=${hook}` });
      await clients(app.url).supply.putProduct({ productId: "p1", declared: 1 });
      await app.stop();
      return (await readFile(list, "utf8")).split("\n");
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  }

  it("is loaded only if a collector is configured", async () => {
    await using collector = await startTraceCollector();
    const [without, having] = await Promise.all([
      loadedBy({}),
      loadedBy({ OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint }),
    ]);
    assert.ok(without.some((url) => url.endsWith("/server/app.ts")));
    // The API package is also loaded by prom-client, for exemplars.
    assert.deepEqual(
      without.filter((url) => /\/@opentelemetry\/(?!api\/)/.test(url)),
      [],
    );
    assert.ok(having.some((url) => url.includes("/@opentelemetry/sdk-trace/")));
    // The shutdown of the server sent the queued spans.
    assert.ok(collector.spans.some((span) => span.name.endsWith("/PutProduct")));
  });
});
