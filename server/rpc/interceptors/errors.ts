import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import type { Logger } from "pino";
import { toConnectError } from "../errors.ts";

/** What a caller may see of an error. Logs the cause where it is a fault of this server. */
export type TellError = (error: unknown, procedure: string, isCallerGone: boolean) => ConnectError;

export function createTellError(log: Logger): TellError {
  return (error, procedure, isCallerGone) => {
    if (isCallerGone) {
      // It is gone or out of time: what fails then fails because of it.
      return ConnectError.from(error, Code.Canceled);
    }
    const answer = toConnectError(error);
    if (answer.code === Code.Internal || answer.code === Code.Unknown) {
      log.error({ procedure, err: answer.cause ?? error }, "A call failed by a fault of the server");
    }
    return answer;
  };
}

/** Turns every error of a call into what its caller may see of it. */
export function errorInterceptor(tell: TellError): Interceptor {
  const told = (error: unknown, procedure: string, signal: AbortSignal): ConnectError =>
    tell(signal.aborted ? (signal.reason ?? error) : error, procedure, signal.aborted);
  return (next) => async (request) => {
    const procedure = `${request.service.typeName}/${request.method.name}`;
    try {
      const response = await next(request);
      if (!response.stream) {
        return response;
      }
      return {
        ...response,
        message: translate(response.message, (error) => told(error, procedure, request.signal)),
      };
    } catch (error) {
      throw told(error, procedure, request.signal);
    }
  };
}

async function* translate<T>(
  messages: AsyncIterable<T>,
  told: (error: unknown) => ConnectError,
): AsyncIterable<T> {
  try {
    yield* messages;
  } catch (error) {
    throw told(error);
  }
}
