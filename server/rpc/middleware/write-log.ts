import type { DescField, DescMethod, Message } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import type { Logger } from "pino";
import { ruleOf } from "../../access/policy.ts";
import { type CallMiddleware, procedureOf } from "../call.ts";

/** Longest ID logged; validation refuses longer ones. */
const ID_LENGTH_MAX = 128;

/**
 * Logs each call of a method that changes something, with its caller and the IDs in its request, but never a token.
 * Calls refused to unauthenticated clients are left out: the access middleware logs them, at a limited rate.
 */
export function writeLogMiddleware(log: Logger, level: "debug" | "info" = "info"): CallMiddleware {
  return {
    leave(call, code) {
      const { method, caller, principal, traceId, startedAt } = call;
      if (!log.isLevelEnabled(level) || !isWrite(method) || !(call.isAdmitted || principal)) {
        return;
      }
      // Read only here, since it generates a UUID where the caller sent none.
      const { requestId } = call;
      log[level](
        {
          method: procedureOf(method),
          caller: principal?.name ?? "anonymous",
          address: caller.address,
          code: code === undefined ? "OK" : Code[code],
          ms: Math.round(10 * (performance.now() - startedAt)) / 10,
          ...(call.request && idsOf(method, call.request)),
          ...call.batch,
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
    ruleOf(method.parent.typeName) !== "public"
  );
}

/** The IDs in the top-level fields of a request, as `{ reservationId: "order-1" }`. */
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
