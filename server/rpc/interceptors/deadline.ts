import { ConnectError, type Interceptor } from "@connectrpc/connect";

/**
 * Ends a unary call with DEADLINE_EXCEEDED or CANCELED when its signal fires, even if the method ignores the signal:
 * Connect alone would respond with OK long after the deadline. A call whose signal fired before does not run.
 */
export const deadlineInterceptor: Interceptor = (next) => async (request) => {
  if (request.stream) {
    return await next(request);
  }
  if (request.signal.aborted) {
    throw ConnectError.from(request.signal.reason);
  }
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(ConnectError.from(request.signal.reason));
  request.signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([next(request), promise]);
  } finally {
    request.signal.removeEventListener("abort", onAbort);
  }
};
