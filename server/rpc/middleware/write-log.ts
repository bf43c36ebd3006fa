import type { DescMethod } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import type { Logger } from "pino";
import { ruleOf } from "../../access/policy.ts";
import { type CallMiddleware, procedureOf } from "../call.ts";
import { batchItems, failureFields, requestFields, responseFields } from "./write-log-entry.ts";

/**
 * Logs each call of a method that changes something: its caller, what it requested and what came of it, but never a token.
 * A batch has one line with its counts, and one more for each of its requests. Calls refused to
 * unauthenticated clients are left out: the access middleware logs them, at a limited rate.
 */
export function writeLogMiddleware(log: Logger, level: "debug" | "info" = "info"): CallMiddleware {
  return {
    leave(call, code) {
      const { method, caller, principal, traceId, startedAt, request, response } = call;
      if (!log.isLevelEnabled(level) || !isWrite(method) || !(call.isAdmitted || principal)) {
        return;
      }
      // Read only here, since it generates a UUID where the caller sent none.
      const { requestId } = call;
      const head = { method: procedureOf(method), caller: principal?.name ?? "anonymous" };
      const content = {
        // First: the lines of a request take precedence over those of the reservation.
        ...(code === undefined && response && responseFields(response)),
        ...(request && requestFields(method.input.fields, request)),
        ...call.batch,
        ...(code !== undefined && failureFields(call.failure)),
      };
      log[level](
        {
          ...content,
          ...head,
          address: caller.address,
          code: code === undefined ? "OK" : Code[code],
          ms: Math.round(10 * (performance.now() - startedAt)) / 10,
          requestId,
          traceId,
        },
        "write",
      );
      for (const item of request ? batchItems(method, request, response) : []) {
        log[level]({ ...item, ...head, requestId, traceId }, "write in a batch");
      }
    },
  };
}

function isWrite(method: DescMethod): boolean {
  return (
    method.idempotency !== MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS &&
    ruleOf(method.parent.typeName) !== "public"
  );
}
