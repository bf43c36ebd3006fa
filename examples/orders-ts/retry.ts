import { setTimeout as sleep } from "node:timers/promises";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { type CallOptions, Code, ConnectError } from "@connectrpc/connect";
import { RetryInfoSchema } from "./gen/google/rpc/error_details_pb.ts";

/** The deadline of one attempt. The service refuses within a second what it cannot do. */
const ATTEMPT_MS_MAX = 2_000;
/** No attempt begins later than this after the first one: the shopper waits. */
const GIVE_UP_AFTER_MS = 15_000;
const BACKOFF_FIRST_MS = 100;
const BACKOFF_MS_MAX = 2_000;

/** Codes that are the service's decision. After any other, the call may have taken effect or not. */
const DECISIONS: ReadonlySet<Code> = new Set([
  Code.InvalidArgument,
  Code.NotFound,
  Code.AlreadyExists,
  Code.FailedPrecondition,
  Code.PermissionDenied,
  Code.Unauthenticated,
  Code.Unimplemented,
  Code.DataLoss,
]);

/** Every attempt failed without a decision: the call may have taken effect or not. */
export class OutcomeUnknown extends Error {}

/**
 * Repeats a call until the service has decided. Each attempt sends the same request, so the same ID, and takes effect at most
 * once. Waits between attempts with exponential backoff and full jitter, on top of the delay that `RetryInfo` asks for.
 * Throws the `ConnectError` of a refusal, and `OutcomeUnknown` after 15 seconds.
 */
export async function repeat<T>(call: (options: CallOptions) => Promise<T>): Promise<T> {
  const giveUpAt = performance.now() + GIVE_UP_AFTER_MS;
  for (let attempt = 0; ; attempt++) {
    try {
      return await call({ timeoutMs: ATTEMPT_MS_MAX });
    } catch (reason) {
      const error = ConnectError.from(reason);
      const retryDelayMs = retryDelayOf(error);
      // Without RetryInfo, RESOURCE_EXHAUSTED means that the message is too large.
      const isTooLarge = error.code === Code.ResourceExhausted && retryDelayMs === undefined;
      if (DECISIONS.has(error.code) || isTooLarge) throw error;
      const backoffMs = Math.random() * Math.min(BACKOFF_MS_MAX, BACKOFF_FIRST_MS * 2 ** attempt);
      const delayMs = Math.round((retryDelayMs ?? 0) + backoffMs);
      if (performance.now() + delayMs > giveUpAt) {
        throw new OutcomeUnknown(`No decision after ${attempt + 1} attempts`, { cause: error });
      }
      console.error(JSON.stringify({ retry: Code[error.code], attempt, retryDelayMs, delayMs }));
      await sleep(delayMs);
    }
  }
}

function retryDelayOf(error: ConnectError): number | undefined {
  const [info] = error.findDetails(RetryInfoSchema);
  return info?.retryDelay && durationMs(info.retryDelay);
}
