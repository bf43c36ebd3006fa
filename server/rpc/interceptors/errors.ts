import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import type { Logger } from "pino";
import { toConnectError } from "../errors.ts";

/**
 * Turns every error into what the caller may see of it, and logs the causes of those that are this
 * server's own fault.
 */
export function errorInterceptor(log: Logger): Interceptor {
  const told = (error: unknown, procedure: string, signal: AbortSignal): ConnectError => {
    if (signal.aborted) {
      // The caller is gone or out of time: what fails then fails because of it.
      return ConnectError.from(signal.reason, Code.Canceled);
    }
    const answer = toConnectError(error);
    if (answer.code === Code.Internal || answer.code === Code.Unknown) {
      log.error({ procedure, err: answer.cause ?? error }, "A call failed by a fault of the server");
    }
    return answer;
  };
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
