import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import type { Logger } from "pino";
import { type Call, callIn, procedureOf } from "../call.ts";
import { toConnectError } from "../errors.ts";

/** Maps an error to the one that the caller gets. Logs the cause where it is a fault of this server. */
export type ErrorReporter = (error: unknown, call: Call, isAborted: boolean) => ConnectError;

export function createErrorReporter(log: Logger): ErrorReporter {
  return (error, call, isAborted) => {
    if (isAborted) {
      // The caller disconnected or the deadline passed; whatever fails afterwards is a consequence.
      return ConnectError.from(error, Code.Canceled);
    }
    call.failure = error;
    const reported = toConnectError(error);
    if (reported.code === Code.Internal || reported.code === Code.Unknown) {
      const { method, requestId, traceId } = call;
      log.error(
        { method: procedureOf(method), requestId, traceId, err: reported.cause ?? error },
        "A call failed because of an error in the server",
      );
      // Lets a caller's report be matched to the log line.
      reported.metadata.set("x-request-id", requestId);
    }
    return reported;
  };
}

/** Maps every error of a call to the one that its caller gets, and records how the call ended. */
export function errorInterceptor(reportError: ErrorReporter): Interceptor {
  return (next) => async (request) => {
    const call = callIn(request.contextValues);
    const { signal } = request;
    const report = (error: unknown): ConnectError => {
      const reported = reportError(signal.aborted ? (signal.reason ?? error) : error, call, signal.aborted);
      call.outcome = reported.code;
      return reported;
    };
    call.outcome = Code.Canceled;
    if (!request.stream) {
      call.request = request.message;
    }
    try {
      const response = await call.run(() => next(request));
      if (!response.stream) {
        call.outcome = undefined;
        call.response = response.message;
        return response;
      }
      return { ...response, message: withReportedErrors(response.message, call, report) };
    } catch (error) {
      throw report(error);
    }
  };
}

async function* withReportedErrors<T>(
  messages: AsyncIterable<T>,
  call: Call,
  report: (error: unknown) => ConnectError,
): AsyncIterable<T> {
  try {
    yield* messages;
    call.outcome = undefined;
  } catch (error) {
    throw report(error);
  }
}
