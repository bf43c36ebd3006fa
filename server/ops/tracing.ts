import { randomUUID } from "node:crypto";
import type { Attributes, Context, Span, SpanKind, Tracer } from "@opentelemetry/api";
import type { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import type { Sampler, SpanExporter } from "@opentelemetry/sdk-trace";
import type { Logger } from "pino";

export const SAMPLERS = [
  "always_on",
  "always_off",
  "traceidratio",
  "parentbased_always_on",
  "parentbased_always_off",
  "parentbased_traceidratio",
] as const;
export type SamplerName = (typeof SAMPLERS)[number];

export interface TracingSettings {
  /** The collector's base URL; spans are sent to `v1/traces` below it. */
  readonly endpoint: string;
  readonly serviceName: string;
  readonly sampler: SamplerName;
  /** The share of traces that ratio samplers keep, 0 to 1. */
  readonly ratio: number;
  /** The maximum time for which a span is queued, ms. */
  readonly exportIntervalMs: number;
}

/** Queued spans; further ones are dropped. */
const SPANS_QUEUED_MAX = 4_096;
const SPANS_PER_EXPORT_MAX = 512;
/** Timeout of one export, also at shutdown, ms. */
const EXPORT_TIMEOUT_MS = 3_000;

/** W3C Trace Context, section 3.2; later versions may append fields. */
const TRACEPARENT = /^(?!ff)[\da-f]{2}-(?!0{32})([\da-f]{32})-(?!0{16})([\da-f]{16})-([\da-f]{2})(?:-.*)?$/;
const SAMPLED = 1;

type Api = typeof import("@opentelemetry/api");
export type TraceRole = "server" | "client" | "producer" | "consumer";

/** The trace context of a request or a message. */
export interface TraceHeaders {
  readonly traceparent: string | undefined;
  readonly tracestate: string | undefined;
}

interface Parts {
  readonly api: Api;
  readonly tracer: Tracer;
  readonly contexts: AsyncLocalStorageContextManager;
  readonly stop: () => Promise<void>;
}

/**
 * Spans by OpenTelemetry. The SDK is loaded only if a collector is configured; otherwise users get `undefined` in place of
 * this object. Nothing is registered globally, so several apps in a process do not affect each other.
 */
export class Tracing {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Starts a span that continues the trace in the headers, or starts a new trace. */
  startSpan(role: TraceRole, name: string, attributes: Attributes, headers?: TraceHeaders): TraceSpan {
    const { api } = this.#parts;
    const parent = headers && remoteParent(api, headers);
    return this.#start(role, name, attributes, parent ?? api.ROOT_CONTEXT);
  }

  /** Starts a child of the active span. `undefined` if there is none, or if its trace is not recorded. */
  startChildSpan(role: TraceRole, name: string, attributes: Attributes): TraceSpan | undefined {
    const { api, contexts } = this.#parts;
    const context = contexts.active();
    return api.trace.getSpan(context)?.isRecording() === true
      ? this.#start(role, name, attributes, context)
      : undefined;
  }

  /** Runs an action, and what it starts, without an active span: it has no child spans. */
  withoutSpan<T>(action: () => T): T {
    const { api, contexts } = this.#parts;
    return contexts.with(api.ROOT_CONTEXT, action);
  }

  /** Sends the queued spans, within a few seconds. Nothing is recorded afterwards. */
  async stop(): Promise<void> {
    await this.#parts.stop();
  }

  #start(role: TraceRole, name: string, attributes: Attributes, parent: Context): TraceSpan {
    const { api, tracer, contexts } = this.#parts;
    const span = tracer.startSpan(name, { kind: kindOf(api, role), attributes }, parent);
    return new TraceSpan(api, contexts, span, api.trace.setSpan(parent, span));
  }
}

/** One span that has not ended. */
export class TraceSpan {
  readonly #api: Api;
  readonly #contexts: AsyncLocalStorageContextManager;
  readonly #span: Span;
  readonly #context: Context;

  constructor(api: Api, contexts: AsyncLocalStorageContextManager, span: Span, context: Context) {
    this.#api = api;
    this.#contexts = contexts;
    this.#span = span;
    this.#context = context;
  }

  get traceId(): string {
    return this.#span.spanContext().traceId;
  }

  /** The trace context to send with requests and messages that this span causes. */
  get headers(): Record<string, string> {
    const { traceId, spanId, traceFlags, traceState } = this.#span.spanContext();
    const flags = (traceFlags & SAMPLED).toString(16).padStart(2, "0");
    return {
      traceparent: `00-${traceId}-${spanId}-${flags}`,
      ...(traceState && { tracestate: traceState.serialize() }),
    };
  }

  /** Runs an action with this span as the active one. */
  run<T>(action: () => T): T {
    return this.#contexts.with(this.#context, action);
  }

  setAttributes(attributes: Attributes): void {
    this.#span.setAttributes(attributes);
  }

  addEvent(event: string): void {
    this.#span.addEvent(event);
  }

  /** Ends the span, as an error if an error type is given. */
  end(errorType?: string): void {
    if (errorType !== undefined) {
      this.#span.setAttribute("error.type", errorType);
      this.#span.setStatus({ code: this.#api.SpanStatusCode.ERROR });
    }
    this.#span.end();
  }
}

/** Loads OpenTelemetry and starts to record. An unavailable collector is logged once per outage. */
export async function startTracing(settings: TracingSettings, log: Logger): Promise<Tracing> {
  const [api, sdk, { OTLPTraceExporter }, { AsyncLocalStorageContextManager }, resources] = await Promise.all(
    [
      import("@opentelemetry/api"),
      import("@opentelemetry/sdk-trace"),
      import("@opentelemetry/exporter-trace-otlp-proto"),
      import("@opentelemetry/context-async-hooks"),
      import("@opentelemetry/resources"),
    ],
  );
  const contexts = new AsyncLocalStorageContextManager();
  // The exporter itself reads headers and certificates for the collector, from OpenTelemetry's variables.
  const exporter = new OTLPTraceExporter({
    url: `${settings.endpoint.replace(/\/$/, "")}/v1/traces`,
    timeoutMillis: EXPORT_TIMEOUT_MS,
  });
  const provider = new sdk.TracerProvider({
    resource: resources.defaultResource().merge(
      resources.resourceFromAttributes({
        "service.name": settings.serviceName,
        "service.instance.id": randomUUID(),
      }),
    ),
    sampler: samplerOf(sdk, settings),
    spanProcessors: [
      new sdk.BatchSpanProcessor({
        exporter: loggingOutages(exporter, log),
        maxQueueSize: SPANS_QUEUED_MAX,
        maxExportBatchSize: SPANS_PER_EXPORT_MAX,
        scheduledDelayMillis: settings.exportIntervalMs,
        exportTimeoutMillis: EXPORT_TIMEOUT_MS,
      }),
    ],
  });
  return new Tracing({
    api,
    tracer: provider.getTracer("inventory"),
    contexts,
    stop: async () => {
      // An unavailable collector is logged already, and must not make the shutdown fail.
      await provider.shutdown().catch(() => {});
      contexts.disable();
    },
  });
}

function loggingOutages(exporter: SpanExporter, log: Logger): SpanExporter {
  let isUnavailable = false;
  return {
    export(spans, done) {
      exporter.export(spans, (result) => {
        const failed = result.error !== undefined || result.code !== 0;
        if (failed && !isUnavailable) {
          log.warn({ err: result.error }, "Export of traces failed; traces are dropped until it succeeds");
        } else if (!failed && isUnavailable) {
          log.info("Export of traces succeeded again");
        }
        isUnavailable = failed;
        done(result);
      });
    },
    shutdown: () => exporter.shutdown(),
  };
}

function samplerOf(sdk: typeof import("@opentelemetry/sdk-trace"), settings: TracingSettings): Sampler {
  const { AlwaysOffSampler, AlwaysOnSampler, ParentBasedSampler, TraceIdRatioBasedSampler } = sdk;
  switch (settings.sampler) {
    case "always_on":
      return new AlwaysOnSampler();
    case "always_off":
      return new AlwaysOffSampler();
    case "traceidratio":
      return new TraceIdRatioBasedSampler(settings.ratio);
    case "parentbased_always_on":
      return new ParentBasedSampler({ root: new AlwaysOnSampler() });
    case "parentbased_always_off":
      return new ParentBasedSampler({ root: new AlwaysOffSampler() });
    case "parentbased_traceidratio":
      return new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(settings.ratio) });
  }
}

function remoteParent(api: Api, { traceparent, tracestate }: TraceHeaders): Context | undefined {
  const [, traceId, spanId, flags] = TRACEPARENT.exec(traceparent ?? "") ?? [];
  if (traceId === undefined || spanId === undefined || flags === undefined) {
    return undefined;
  }
  return api.trace.setSpanContext(api.ROOT_CONTEXT, {
    traceId,
    spanId,
    traceFlags: Number.parseInt(flags, 16) & SAMPLED,
    isRemote: true,
    ...(tracestate !== undefined && { traceState: api.createTraceState(tracestate) }),
  });
}

function kindOf({ SpanKind }: Api, role: TraceRole): SpanKind {
  switch (role) {
    case "server":
      return SpanKind.SERVER;
    case "client":
      return SpanKind.CLIENT;
    case "producer":
      return SpanKind.PRODUCER;
    case "consumer":
      return SpanKind.CONSUMER;
  }
}
