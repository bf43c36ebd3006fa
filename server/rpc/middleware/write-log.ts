import type { DescField, DescMethod, Message } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import type { Logger } from "pino";
import { ruleOf } from "../../access/policy.ts";
import { type CallMiddleware, procedureOf } from "../call.ts";

/** Longest ID that the log takes; a longer one was refused by validation. */
const ID_LENGTH_MAX = 128;

/**
 * Logs every call that was to change something, one line each, with who called and what it was about. Tokens never are
 * logged. What was refused to a stranger is no write, and for the stage that refused it to tell: a flood of those is a line for each.
 */
export function writeLogMiddleware(log: Logger, level: "debug" | "info" = "info"): CallMiddleware {
  return {
    leave(call, code) {
      const { method, caller, principal, traceId, beganAt } = call;
      if (!log.isLevelEnabled(level) || !isWrite(method) || !(call.isAdmitted || principal)) {
        return;
      }
      // Made up where the caller sent none, which is not for nothing.
      const { requestId } = call;
      log[level](
        {
          method: procedureOf(method),
          caller: principal?.name ?? "anonymous",
          address: caller.address,
          code: code === undefined ? "OK" : Code[code],
          ms: Math.round(10 * (performance.now() - beganAt)) / 10,
          ...(call.request && idsOf(method, call.request)),
          requestId,
          traceId,
        },
        "write",
      );
    },
  };
}

function isWrite(method: DescMethod): boolean {
  return (
    method.idempotency !== MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS &&
    ruleOf(method.parent.typeName) !== "everybody"
  );
}

/** The IDs in a request's own fields, as `{ reservationId: "order-1" }`. */
function idsOf(method: DescMethod, request: Message): Record<string, string> {
  const ids: Record<string, string> = {};
  for (const field of method.input.fields) {
    const value = isId(field) ? Reflect.get(request, field.localName) : undefined;
    if (typeof value === "string" && value !== "") {
      ids[field.localName] = value.slice(0, ID_LENGTH_MAX);
    }
  }
  return ids;
}

function isId(field: DescField): boolean {
  return field.fieldKind === "scalar" && field.name.endsWith("_id");
}
