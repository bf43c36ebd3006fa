import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import { StockService } from "../../../gen/inventory/v1/stock_pb.ts";
import { retryDetails } from "../errors.ts";

/**
 * Ends streaming calls with UNAVAILABLE when the server drains: they would otherwise hold their connections until the
 * drain deadline. Unary calls complete, and WatchStock ends its streams itself, with a last message.
 */
export function drainInterceptor(draining: AbortSignal): Interceptor {
  return (next) => async (request) => {
    const response = await next(request);
    const endsItself = request.method === StockService.method.watchStock;
    return response.stream && !endsItself
      ? { ...response, message: untilDraining(response.message, draining) }
      : response;
  };
}

async function* untilDraining<T>(messages: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  aborted.catch(() => {});
  const onAbort = (): void =>
    reject(
      new ConnectError(
        "The server is shutting down; connect again",
        Code.Unavailable,
        undefined,
        retryDetails(),
      ),
    );
  if (signal.aborted) {
    onAbort();
  }
  signal.addEventListener("abort", onAbort, { once: true });
  const iterator = messages[Symbol.asyncIterator]();
  try {
    for (;;) {
      const result = await Promise.race([iterator.next(), aborted]);
      if (result.done === true) {
        return;
      }
      yield result.value;
    }
  } finally {
    signal.removeEventListener("abort", onAbort);
    // Not awaited: it settles only when the generator's pending `next` does.
    void iterator.return?.().catch(() => {});
  }
}
