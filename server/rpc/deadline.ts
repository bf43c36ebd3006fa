import { Code, ConnectError } from "@connectrpc/connect";
import { parseTimeout as parseConnect } from "@connectrpc/connect/protocol-connect";
import { parseTimeout as parseGrpc } from "@connectrpc/connect/protocol-grpc";

/**
 * Longest deadline of a call, in ms. A longer one is shortened to it: the protocols allow up to 11,415 years, a timer holds
 * 24.8 days, and no call takes a day.
 */
export const TIMEOUT_MS_MAX = 86_400_000;

/** `timeoutMs` is `undefined`, and `error` is set, where the value is not what the protocol allows. */
export interface ParsedTimeout {
  readonly timeoutMs?: number | undefined;
  readonly error?: ConnectError | undefined;
}

/** Parses `grpc-timeout`: up to eight digits and a unit, `H`, `M`, `S`, `m`, `u` or `n`. */
export function parseGrpcTimeout(value: string): ParsedTimeout {
  return shortened(parseGrpc(value, Number.POSITIVE_INFINITY));
}

/** Parses `connect-timeout-ms`: up to ten digits. */
export function parseConnectTimeout(value: string): ParsedTimeout {
  return shortened(parseConnect(value, Number.POSITIVE_INFINITY));
}

function shortened({ timeoutMs, error }: ParsedTimeout): ParsedTimeout {
  return timeoutMs === undefined || error !== undefined
    ? { error }
    : { timeoutMs: Math.min(timeoutMs, TIMEOUT_MS_MAX) };
}

/** Same text as Connect's. */
export function deadlineExceeded(): ConnectError {
  return new ConnectError("the operation timed out", Code.DeadlineExceeded);
}

/** A header that names the timeout of a call, and how to read and write it. */
interface TimeoutHeader {
  readonly name: string;
  parse(value: string): ParsedTimeout;
  format(ms: number): string;
}

const GRPC_CONTENT_TYPE = /^application\/grpc/i;
const GRPC_TIMEOUT: TimeoutHeader = {
  name: "grpc-timeout",
  parse: parseGrpcTimeout,
  format: (ms) => `${ms}m`,
};
const CONNECT_TIMEOUT: TimeoutHeader = {
  name: "connect-timeout-ms",
  parse: parseConnectTimeout,
  format: (ms) => `${ms}`,
};

/** Times in ms of `performance.now()`. */
interface TimedCall {
  readonly startedAt: number;
  deadline: number | undefined;
}

/**
 * Sets the deadline of a call from the timeout in its headers, unless the fast path has set it. Then replaces that timeout
 * by what is left of it, which Connect starts its own timer with.
 */
export function applyTimeout(call: TimedCall, header: Headers): void {
  const timeoutHeader = GRPC_CONTENT_TYPE.test(header.get("content-type") ?? "")
    ? GRPC_TIMEOUT
    : CONNECT_TIMEOUT;
  const value = header.get(timeoutHeader.name);
  const { timeoutMs } = value === null ? {} : timeoutHeader.parse(value);
  if (timeoutMs !== undefined) {
    call.deadline ??= call.startedAt + timeoutMs;
    const leftMs = Math.max(0, Math.ceil(call.deadline - performance.now()));
    header.set(timeoutHeader.name, timeoutHeader.format(leftMs));
  }
}

/** Settles as `work` does, or rejects with the reason of `signal` where that fires first. */
export async function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason);
  if (signal.aborted) {
    onAbort();
  }
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** A request body that fails with DEADLINE_EXCEEDED where it is not complete at the deadline, in `performance.now()`. */
export async function* untilDeadline(
  body: AsyncIterable<Uint8Array>,
  deadline: number,
): AsyncGenerator<Uint8Array> {
  const { promise: expired, reject } = Promise.withResolvers<never>();
  expired.catch(() => {});
  const timer = setTimeout(() => reject(deadlineExceeded()), Math.max(0, deadline - performance.now()));
  const chunks = body[Symbol.asyncIterator]();
  try {
    for (;;) {
      const result = await Promise.race([chunks.next(), expired]);
      if (result.done === true) {
        return;
      }
      yield result.value;
    }
  } finally {
    clearTimeout(timer);
    // Not awaited: it settles only when the pending `next` does.
    void chunks.return?.().catch(() => {});
  }
}
