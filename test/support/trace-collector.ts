import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { fromJSON } from "@grpc/proto-loader";

/** A span, with IDs in hex and attributes by name. */
export interface CollectedSpan {
  readonly service: string;
  readonly traceId: string;
  readonly spanId: string;
  /** Empty for the first span of a trace. */
  readonly parentSpanId: string;
  readonly name: string;
  /** Of OTLP: 2 server, 3 client, 4 producer, 5 consumer. */
  readonly kind: number;
  readonly attributes: Readonly<Record<string, unknown>>;
  readonly events: readonly string[];
  /** 2: error. */
  readonly status: number;
}

/** A trace collector for OTLP over HTTP in protobuf; spans only. */
export interface TraceCollector extends AsyncDisposable {
  /** The value for OTEL_EXPORTER_OTLP_ENDPOINT. */
  readonly endpoint: string;
  readonly spans: readonly CollectedSpan[];
}

/** The part of opentelemetry/proto/collector/trace/v1 that is used here. */
const OTLP = fromJSON(
  {
    nested: {
      Request: { fields: { resourceSpans: { rule: "repeated", type: "ResourceSpans", id: 1 } } },
      ResourceSpans: {
        fields: {
          resource: { type: "Resource", id: 1 },
          scopeSpans: { rule: "repeated", type: "ScopeSpans", id: 2 },
        },
      },
      Resource: { fields: { attributes: { rule: "repeated", type: "KeyValue", id: 1 } } },
      ScopeSpans: { fields: { spans: { rule: "repeated", type: "Span", id: 2 } } },
      Span: {
        fields: {
          traceId: { type: "bytes", id: 1 },
          spanId: { type: "bytes", id: 2 },
          parentSpanId: { type: "bytes", id: 4 },
          name: { type: "string", id: 5 },
          kind: { type: "int32", id: 6 },
          attributes: { rule: "repeated", type: "KeyValue", id: 9 },
          events: { rule: "repeated", type: "Event", id: 11 },
          status: { type: "Status", id: 15 },
        },
      },
      Event: { fields: { name: { type: "string", id: 2 } } },
      Status: { fields: { code: { type: "int32", id: 3 } } },
      KeyValue: { fields: { key: { type: "string", id: 1 }, value: { type: "AnyValue", id: 2 } } },
      AnyValue: {
        oneofs: { value: { oneof: ["stringValue", "boolValue", "intValue", "doubleValue"] } },
        fields: {
          stringValue: { type: "string", id: 1 },
          boolValue: { type: "bool", id: 2 },
          intValue: { type: "int64", id: 3 },
          doubleValue: { type: "double", id: 4 },
        },
      },
    },
  },
  { longs: Number, defaults: true, oneofs: true, keepCase: true },
);

interface KeyValue {
  readonly key: string;
  readonly value: Readonly<Record<string, unknown>> & { readonly value: string };
}

interface Request {
  readonly resourceSpans: readonly {
    readonly resource: { readonly attributes: readonly KeyValue[] };
    readonly scopeSpans: readonly {
      readonly spans: readonly {
        readonly traceId: Buffer;
        readonly spanId: Buffer;
        readonly parentSpanId: Buffer;
        readonly name: string;
        readonly kind: number;
        readonly attributes: readonly KeyValue[];
        readonly events: readonly { readonly name: string }[];
        readonly status: { readonly code: number } | null;
      }[];
    }[];
  }[];
}

export async function startTraceCollector(): Promise<TraceCollector> {
  const spans: CollectedSpan[] = [];
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) {
      chunks.push(chunk);
    }
    const isTraces = request.url === "/v1/traces" && request.method === "POST";
    if (!isTraces || request.headers["content-type"] !== "application/x-protobuf") {
      response.writeHead(400).end();
      return;
    }
    spans.push(...spansOf(Buffer.concat(chunks)));
    response.writeHead(200, { "content-type": "application/x-protobuf" }).end();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    endpoint: `http://127.0.0.1:${port}`,
    spans,
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

function spansOf(body: Buffer): CollectedSpan[] {
  const definition = OTLP["Request"];
  if (
    definition === undefined ||
    !("deserialize" in definition) ||
    typeof definition.deserialize !== "function"
  ) {
    throw new Error("The description of OTLP has no request");
  }
  const { resourceSpans } = definition.deserialize(body) as Request;
  return resourceSpans.flatMap(({ resource, scopeSpans }) =>
    scopeSpans.flatMap((scope) =>
      scope.spans.map((span) => ({
        service: String(attributesOf(resource.attributes)["service.name"]),
        traceId: span.traceId.toString("hex"),
        spanId: span.spanId.toString("hex"),
        parentSpanId: span.parentSpanId.toString("hex"),
        name: span.name,
        kind: span.kind,
        attributes: attributesOf(span.attributes),
        events: span.events.map((event) => event.name),
        status: span.status?.code ?? 0,
      })),
    ),
  );
}

function attributesOf(pairs: readonly KeyValue[]): Record<string, unknown> {
  return Object.fromEntries(pairs.map(({ key, value }) => [key, value[value.value]]));
}
