import type { IncomingHttpHeaders } from "node:http";
import { Code } from "@connectrpc/connect";
import type { TraceSpan, Tracing } from "../../ops/tracing.ts";
import { type Call, type CallMiddleware, procedureOf } from "../call.ts";

/** Codes that mark a server span as failed, by the semantic conventions for gRPC. */
const FAULTS: ReadonlySet<Code> = new Set([
  Code.Unknown,
  Code.DeadlineExceeded,
  Code.Unimplemented,
  Code.Internal,
  Code.Unavailable,
  Code.DataLoss,
]);

/**
 * Traces each call as a server span, a child of the caller's span where the request has a `traceparent`. Attributes are
 * those of OpenTelemetry's semantic conventions for RPC, version 1.45.
 */
export function tracingMiddleware(tracing: Tracing): CallMiddleware {
  const spans = new WeakMap<Call, TraceSpan>();
  return {
    enter(call) {
      const { method, headers, caller } = call;
      const name = procedureOf(method);
      const span = tracing.startSpan(
        "server",
        name,
        {
          "rpc.system.name": isGrpc(headers) ? "grpc" : "connectrpc",
          "rpc.method": name,
          "client.address": caller.address,
        },
        { traceparent: joined(headers["traceparent"]), tracestate: joined(headers["tracestate"]) },
      );
      call.traceId = span.traceId;
      spans.set(call, span);
    },
    run(call, method) {
      const span = spans.get(call);
      return span === undefined ? method() : span.run(method);
    },
    leave(call, code) {
      const span = spans.get(call);
      const status = statusOf(code);
      span?.setAttributes({
        "rpc.status_code": status,
        ...(call.principal && { "enduser.id": call.principal.name }),
        ...(call.batch && {
          "inventory.batch.requests": call.batch.requests,
          "inventory.batch.failed": call.batch.failed,
        }),
      });
      span?.end(code !== undefined && FAULTS.has(code) ? status : undefined);
    },
  };
}

function isGrpc(headers: IncomingHttpHeaders): boolean {
  return headers["content-type"]?.startsWith("application/grpc") === true;
}

function joined(header: string | string[] | undefined): string | undefined {
  return typeof header === "string" ? header : header?.join(",");
}

/** `DEADLINE_EXCEEDED`. gRPC spells `CANCELLED` with two l. */
function statusOf(code: Code | undefined): string {
  if (code === undefined) {
    return "OK";
  }
  return code === Code.Canceled
    ? "CANCELLED"
    : (Code[code] ?? "Unknown").replace(/(?<=.)(?=[A-Z])/g, "_").toUpperCase();
}
