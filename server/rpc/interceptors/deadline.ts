import { ConnectError, type Interceptor } from "@connectrpc/connect";

/**
 * Answers DEADLINE_EXCEEDED or CANCELED when a unary call's signal fires, whether or not its
 * handler looks at the signal: Connect alone would answer OK long after the deadline. What has come too late is not begun.
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
