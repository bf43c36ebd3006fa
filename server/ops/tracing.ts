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
  /** The collector; spans go to `v1/traces` below it. */
  readonly endpoint: string;
  readonly serviceName: string;
  readonly sampler: SamplerName;
  /** Share of traces kept by the samplers by ratio, 0 to 1. */
  readonly ratio: number;
  /** Longest time that a span waits to be sent. */
  readonly exportIntervalMs: number;
}

/** Spans that wait for the collector; what comes beyond them is dropped. */
const SPANS_WAITING_MAX = 4_096;
const SPANS_PER_EXPORT_MAX = 512;
/** How long the collector may take for one export, also at the end of the server. */
const EXPORT_MS_MAX = 3_000;

/** W3C Trace Context, section 3.2; later versions may append fields. */
const TRACEPARENT = /^(?!ff)[\da-f]{2}-(?!0{32})([\da-f]{32})-(?!0{16})([\da-f]{16})-([\da-f]{2})(?:-.*)?$/;
const SAMPLED = 1;

type Api = typeof import("@opentelemetry/api");
export type TraceRole = "server" | "client" | "producer" | "consumer";

/** What a caller or a message says of the trace that it belongs to. */
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
 * Spans by OpenTelemetry, for the rooms that have something to trace. They get it or nothing: where no collector is set,
 * OpenTelemetry's SDK is not loaded. Nothing is registered globally, so several apps in a process do not meet.
 */
export class Tracing {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Begins a span that goes on with the trace in the headers, or begins a trace. */
  begin(role: TraceRole, name: string, attributes: Attributes, headers?: TraceHeaders): TraceSpan {
    const { api } = this.#parts;
    const parent = headers && remoteParent(api, headers);
    return this.#begin(role, name, attributes, parent ?? api.ROOT_CONTEXT);
  }

  /** Begins a span below the one that runs. `undefined` where none does, or where its trace is not recorded. */
  beginBelow(role: TraceRole, name: string, attributes: Attributes): TraceSpan | undefined {
    const { api, contexts } = this.#parts;
    const context = contexts.active();
    return api.trace.getSpan(context)?.isRecording() === true
      ? this.#begin(role, name, attributes, context)
      : undefined;
  }

  /** Sends what waits, within a few seconds. Nothing is recorded afterwards. */
  async stop(): Promise<void> {
    await this.#parts.stop();
  }

  #begin(role: TraceRole, name: string, attributes: Attributes, parent: Context): TraceSpan {
    const { api, tracer, contexts } = this.#parts;
    const span = tracer.startSpan(name, { kind: kindOf(api, role), attributes }, parent);
    return new TraceSpan(api, contexts, span, api.trace.setSpan(parent, span));
  }
}

/** One span, until it is ended. */
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

  /** What to send along with whatever follows from this span. */
  get headers(): Record<string, string> {
    const { traceId, spanId, traceFlags, traceState } = this.#span.spanContext();
    const flags = (traceFlags & SAMPLED).toString(16).padStart(2, "0");
    return {
      traceparent: `00-${traceId}-${spanId}-${flags}`,
      ...(traceState && { tracestate: traceState.serialize() }),
    };
  }

  /** Runs something whose spans are below this one. */
  run<T>(action: () => T): T {
    return this.#contexts.with(this.#context, action);
  }

  add(attributes: Attributes): void {
    this.#span.setAttributes(attributes);
  }

  happened(event: string): void {
    this.#span.addEvent(event);
  }

  /** Ends the span; as an error with its type where one is given. */
  end(errorType?: string): void {
    if (errorType !== undefined) {
      this.#span.setAttribute("error.type", errorType);
      this.#span.setStatus({ code: this.#api.SpanStatusCode.ERROR });
    }
    this.#span.end();
  }
}

/** Loads OpenTelemetry and begins to record. A collector that is away is told once for each outage. */
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
  // Headers and certificates for the collector the exporter reads itself, from the variables that OpenTelemetry names.
  const exporter = new OTLPTraceExporter({
    url: `${settings.endpoint.replace(/\/$/, "")}/v1/traces`,
    timeoutMillis: EXPORT_MS_MAX,
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
        exporter: tellingOutages(exporter, log),
        maxQueueSize: SPANS_WAITING_MAX,
        maxExportBatchSize: SPANS_PER_EXPORT_MAX,
        scheduledDelayMillis: settings.exportIntervalMs,
        exportTimeoutMillis: EXPORT_MS_MAX,
      }),
    ],
  });
  return new Tracing({
    api,
    tracer: provider.getTracer("inventory"),
    contexts,
    stop: async () => {
      // The outage, if there is one, is told already; a server that ends must not fail for it.
      await provider.shutdown().catch(() => {});
      contexts.disable();
    },
  });
}

function tellingOutages(exporter: SpanExporter, log: Logger): SpanExporter {
  let isAway = false;
  return {
    export(spans, done) {
      exporter.export(spans, (result) => {
        const failed = result.error !== undefined || result.code !== 0;
        if (failed && !isAway) {
          log.warn({ err: result.error }, "Traces cannot be delivered; they are dropped until they can");
        } else if (!failed && isAway) {
          log.info("Traces are delivered again");
        }
        isAway = failed;
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
