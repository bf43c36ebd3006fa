import type { Interceptor } from "@connectrpc/connect";
import { untilAborted } from "../deadline.ts";

/**
 * Ends a unary call with DEADLINE_EXCEEDED or CANCELED when its signal fires, even if the method ignores the signal:
 * Connect alone would respond with OK long after the deadline. A call whose signal fired before does not run.
 */
export const deadlineInterceptor: Interceptor = (next) => async (request) => {
  if (request.stream) {
    return await next(request);
  }
  request.signal.throwIfAborted();
  return await untilAborted(next(request), request.signal);
};
