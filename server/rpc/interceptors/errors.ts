import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import type { Logger } from "pino";
import { type Call, callIn, procedureOf } from "../call.ts";
import { toConnectError } from "../errors.ts";

/** What a caller may see of an error. Logs the cause where it is a fault of this server. */
export type ErrorReporter = (error: unknown, call: Call, isCallerGone: boolean) => ConnectError;

export function createErrorReporter(log: Logger): ErrorReporter {
  return (error, call, isCallerGone) => {
    if (isCallerGone) {
      // It is gone or out of time: what fails then fails because of it.
      return ConnectError.from(error, Code.Canceled);
    }
    const answer = toConnectError(error);
    if (answer.code === Code.Internal || answer.code === Code.Unknown) {
      const { method, requestId, traceId } = call;
      log.error(
        { method: procedureOf(method), requestId, traceId, err: answer.cause ?? error },
        "A call failed by a fault of the server",
      );
      // For whoever is asked about it: the line in the log has the same.
      answer.metadata.set("x-request-id", requestId);
    }
    return answer;
  };
}

/** Turns every error of a call into what its caller may see of it, and keeps how the call ended. */
export function errorInterceptor(tell: ErrorReporter): Interceptor {
  return (next) => async (request) => {
    const call = callIn(request.contextValues);
    const { signal } = request;
    const told = (error: unknown): ConnectError => {
      const answer = tell(signal.aborted ? (signal.reason ?? error) : error, call, signal.aborted);
      call.outcome = answer.code;
      return answer;
    };
    call.outcome = Code.Canceled;
    if (!request.stream) {
      call.request = request.message;
    }
    try {
      const response = await call.run(() => next(request));
      if (!response.stream) {
        call.outcome = undefined;
        return response;
      }
      return { ...response, message: translate(response.message, call, told) };
    } catch (error) {
      throw told(error);
    }
  };
}

async function* translate<T>(
  messages: AsyncIterable<T>,
  call: Call,
  told: (error: unknown) => ConnectError,
): AsyncIterable<T> {
  try {
    yield* messages;
    call.outcome = undefined;
  } catch (error) {
    throw told(error);
  }
}
