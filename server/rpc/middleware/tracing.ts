import type { IncomingHttpHeaders } from "node:http";
import { Code } from "@connectrpc/connect";
import type { TraceSpan, Tracing } from "../../ops/tracing.ts";
import { type Call, type CallMiddleware, procedureOf } from "../call.ts";

/** Codes that are the server's fault, as the semantic conventions for gRPC have them; the others are answers. */
const FAULTS: ReadonlySet<Code> = new Set([
  Code.Unknown,
  Code.DeadlineExceeded,
  Code.Unimplemented,
  Code.Internal,
  Code.Unavailable,
  Code.DataLoss,
]);

/**
 * A span for each call, below the caller's where its `traceparent` names one, with the attributes of OpenTelemetry's
 * semantic conventions for RPC, version 1.45. What the method does runs below it.
 */
export function tracingMiddleware(tracing: Tracing): CallMiddleware {
  const spans = new WeakMap<Call, TraceSpan>();
  return {
    enter(call) {
      const { method, headers, caller } = call;
      const name = procedureOf(method);
      const span = tracing.begin(
        "server",
        name,
        {
          "rpc.system.name": isGrpc(headers) ? "grpc" : "connectrpc",
          "rpc.method": name,
          "client.address": caller.address,
        },
        { traceparent: oneOf(headers["traceparent"]), tracestate: oneOf(headers["tracestate"]) },
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
      const told = statusOf(code);
      span?.add({
        "rpc.status_code": told,
        ...(call.principal && { "enduser.id": call.principal.name }),
      });
      span?.end(code !== undefined && FAULTS.has(code) ? told : undefined);
    },
  };
}

function isGrpc(headers: IncomingHttpHeaders): boolean {
  return headers["content-type"]?.startsWith("application/grpc") === true;
}

function oneOf(header: string | string[] | undefined): string | undefined {
  return typeof header === "string" ? header : header?.join(",");
}

/** `DEADLINE_EXCEEDED`. gRPC spells "canceled" with two l. */
function statusOf(code: Code | undefined): string {
  if (code === undefined) {
    return "OK";
  }
  return code === Code.Canceled
    ? "CANCELLED"
    : (Code[code] ?? "Unknown").replace(/(?<=.)(?=[A-Z])/g, "_").toUpperCase();
}
