import { Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema } from "../../gen/google/rpc/error_details_pb.ts";
import type { Status } from "../../gen/google/rpc/status_pb.ts";
import { codeName } from "../errors.ts";
import { isRetriable, type RetryOptions, withRetry } from "../retry.ts";
import type { Session } from "../session.ts";
import type { Operation } from "./rows.ts";

/** Longest time of one batch, ms. */
const BATCH_TIMEOUT_MS_MIN = 60_000;
/** Deletions have no batch call: so many are in flight at once. */
const DELETIONS_IN_FLIGHT = 16;

/** What came of one row. `superseded`: a newer update or deletion is stored, and stays. */
export type RowResult =
  | { readonly outcome: "applied" | "superseded" }
  | { readonly outcome: "failed"; readonly column: string; readonly reason: string };

/**
 * Sends operations of one method, at most 1,000, and repeats those that fail because the server or its store is
 * unavailable. All of them are safe to repeat: products have a time, counts and adjustments an ID. Throws the last error if the
 * server stays unavailable, or if it refuses the call as a whole.
 */
export async function sendBatch(
  session: Session,
  operations: readonly Operation[],
  retry: RetryOptions,
): Promise<RowResult[]> {
  const results: RowResult[] = [];
  let pending = operations.map((operation, index) => ({ operation, index }));
  await withRetry(async () => {
    const outcomes = await callOnce(
      session,
      pending.map(({ operation }) => operation),
    );
    const again: typeof pending = [];
    let lastError: ConnectError | undefined;
    for (const [n, outcome] of outcomes.entries()) {
      const entry = pending[n];
      if (entry === undefined) continue;
      if (!(outcome instanceof ConnectError)) {
        results[entry.index] = { outcome: outcome.applied ? "applied" : "superseded" };
      } else if (isRetriable(outcome)) {
        lastError = outcome;
        again.push(entry);
      } else {
        results[entry.index] = { outcome: "failed", ...describe(outcome) };
      }
    }
    pending = again;
    if (lastError !== undefined) throw lastError;
  }, retry);
  return results;
}

type Outcome = ConnectError | { readonly applied: boolean };

/** Sends the operations, all of one method, once. */
async function callOnce(session: Session, operations: readonly Operation[]): Promise<Outcome[]> {
  const options = { timeoutMs: Math.max(session.timeoutMs, BATCH_TIMEOUT_MS_MIN) };
  try {
    switch (operations[0]?.method) {
      case "put": {
        const requests = operations.flatMap((each) => (each.method === "put" ? [each.request] : []));
        const { results } = await session.supply.batchPutProducts({ requests }, options);
        return results.map(({ error, response }) =>
          error === undefined ? { applied: response?.applied ?? true } : toError(error),
        );
      }
      case "count": {
        const requests = operations.flatMap((each) => (each.method === "count" ? [each.request] : []));
        const { results } = await session.supply.batchCountStock({ requests }, options);
        return results.map(({ error }) => (error === undefined ? { applied: true } : toError(error)));
      }
      case "adjust": {
        const requests = operations.flatMap((each) => (each.method === "adjust" ? [each.request] : []));
        const { results } = await session.supply.batchAdjustStock({ requests }, options);
        return results.map(({ error }) => (error === undefined ? { applied: true } : toError(error)));
      }
      case "delete":
        return await deleteAll(session, operations);
      case undefined:
        return [];
    }
  } catch (thrown) {
    throw asUnavailable(ConnectError.from(thrown));
  }
}

async function deleteAll(session: Session, operations: readonly Operation[]): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  const entries = operations.entries();
  const work = async (): Promise<void> => {
    // All workers take from the same iterator.
    for (const [index, { method, request }] of entries) {
      if (method !== "delete") continue;
      try {
        outcomes[index] = await session.supply.deleteProduct(request);
      } catch (thrown) {
        outcomes[index] = asUnavailable(ConnectError.from(thrown));
      }
    }
  };
  await Promise.all(Array.from({ length: DELETIONS_IN_FLIGHT }, work));
  return outcomes;
}

/** An exceeded deadline as UNAVAILABLE: the call may be sent again. */
function asUnavailable(error: ConnectError): ConnectError {
  if (error.code !== Code.DeadlineExceeded) return error;
  return new ConnectError(error.rawMessage, Code.Unavailable, undefined, undefined, error.cause);
}

/** The error of one request of a batch, with the details that it would have alone. */
function toError({ code, message, details }: Status): ConnectError {
  const error = new ConnectError(message, code);
  error.details = details.map(({ typeUrl, value }) => ({ type: typeUrl.replace(/^.*\//, ""), value }));
  return error;
}

function describe(error: ConnectError): { readonly column: string; readonly reason: string } {
  const [violation, ...others] = error.findDetails(BadRequestSchema)[0]?.fieldViolations ?? [];
  if (violation === undefined) return { column: "", reason: `${codeName(error.code)}: ${error.rawMessage}` };
  const more = others.map(({ field, description }) => `; ${columnOf(field)} ${description}`).join("");
  return { column: columnOf(violation.field), reason: `${violation.description}${more}` };
}

/** `product.price` is the column `price`. */
function columnOf(field: string): string {
  return field.replace(/^product\./, "");
}
