import assert from "node:assert/strict";
import { it } from "node:test";
import { startTestApp } from "../support/app.ts";
import { startTraceCollector } from "../support/trace-collector.ts";
import { until } from "../support/until.ts";
import { headerOf, produce, productMessage, readTopic, skip, startPlatform } from "./platform.ts";

const PRODUCER = 4;
const CONSUMER = 5;
const TRACE_ID = "a".repeat(32);
const SPAN_ID = "b".repeat(16);

it("a trace goes on from a seller's message, and changes carry the trace that sent them", {
  skip,
}, async () => {
  await using platform = await startPlatform();
  await using collector = await startTraceCollector();
  await using _app = await startTestApp({
    ...platform.environment,
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint,
    OTEL_BSP_SCHEDULE_DELAY: "20",
  });
  const message = productMessage("Create", { id: "traced", inventory: 7, updatedAt: "2026-01-01T00:00:00Z" });
  const headers = { ...message.headers, traceparent: `00-${TRACE_ID}-${SPAN_ID}-01` };
  await produce(platform.kafka, "product", [{ ...message, headers }]);

  const applied = await until(
    () => collector.spans.find((span) => span.name === "process product"),
    "the event is applied",
    30_000,
  );
  assert.equal(applied.kind, CONSUMER);
  assert.equal(applied.traceId, TRACE_ID);
  assert.equal(applied.parentSpanId, SPAN_ID);
  assert.equal(applied.attributes["messaging.destination.name"], "product");
  assert.equal(applied.attributes["messaging.kafka.offset"], 0);
  const step = await until(
    () => collector.spans.find((span) => span.name === "redis put_product"),
    "the step in Redis is told",
  );
  assert.equal(step.parentSpanId, applied.spanId);

  const change = await until(
    async () => (await readTopic(platform.kafka, "inventory"))[0],
    "the change is published",
    30_000,
  );
  // Not necessarily the first span of that name: a failed send has a span, too.
  const sent = await until(
    () => collector.spans.find(({ spanId }) => headerOf(change, "traceparent")?.includes(spanId)),
    "the send is told",
  );
  assert.equal(sent.name, "send inventory");
  assert.equal(sent.kind, PRODUCER);
  assert.equal(headerOf(change, "traceparent"), `00-${sent.traceId}-${sent.spanId}-01`);
});
