import { setTimeout as pause } from "node:timers/promises";
import { Code, ConnectError } from "@connectrpc/connect";
import { RetryInfoSchema } from "../gen/google/rpc/error_details_pb.ts";
import { durationMs } from "./values.ts";

/** The first delay, and the longest, ms. */
const DELAY_MS_MIN = 200;
const DELAY_MS_MAX = 10_000;

export interface RetryOptions {
  /** After this time no further attempt is made. */
  readonly limitMs: number;
  /** Ends the wait for the next attempt. */
  readonly signal?: AbortSignal;
  /** Called before each delay. */
  readonly onRetry?: (error: ConnectError, delayMs: number) => void;
}

/**
 * Makes a call that is safe to repeat, until it succeeds, fails for good, or the time is up; then throws the last
 * error. Waits at least as long as the server asks for (RetryInfo), and otherwise by exponential backoff with full jitter
 * (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
 */
export async function withRetry<Result>(
  call: () => Promise<Result>,
  { limitMs, signal, onRetry }: RetryOptions,
): Promise<Result> {
  const startMs = performance.now();
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await call();
    } catch (thrown) {
      const error = ConnectError.from(thrown);
      const delayMs = delayOf(error, attempt);
      if (signal?.aborted || !isRetriable(error) || performance.now() - startMs + delayMs > limitMs)
        throw thrown;
      onRetry?.(error, delayMs);
      await pause(delayMs, undefined, signal && { signal });
    }
  }
}

/** Whether the same call may succeed later. Without RetryInfo, RESOURCE_EXHAUSTED means that the message is too large. */
export function isRetriable(error: ConnectError): boolean {
  return error.code === Code.Unavailable || isConnectionLost(error) || retryDelayMs(error) !== undefined;
}

/** Whether the connection was lost, for which the transport has several codes. Commands do not cancel the calls that they retry. */
function isConnectionLost({ code, cause, rawMessage }: ConnectError): boolean {
  if (code === Code.Canceled) return true;
  const isOfTransport = [Code.Unknown, Code.Internal, Code.Aborted].includes(code);
  return isOfTransport && (/^http\/2 /.test(rawMessage) || (cause instanceof Error && "syscall" in cause));
}

function delayOf(error: ConnectError, attempt: number): number {
  const backoffMs = Math.min(DELAY_MS_MAX, DELAY_MS_MIN * 2 ** attempt);
  return (retryDelayMs(error) ?? 0) + Math.random() * backoffMs;
}

function retryDelayMs(error: ConnectError): number | undefined {
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  return delay && durationMs(delay);
}
