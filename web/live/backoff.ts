export interface BackoffLimits {
  readonly firstMs: number;
  readonly maxMs: number;
}

/**
 * The delay before attempt `failures + 1`: exponential backoff with full jitter, a random share of a delay that doubles
 * up to `maxMs`. Pages that lost the same server then reconnect at different times.
 */
export function backoffMs(failures: number, limits: BackoffLimits): number {
  return Math.random() * Math.min(limits.maxMs, limits.firstMs * 2 ** Math.min(failures, 16));
}

/** Resolves after `ms`, or when the signal is aborted. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
    if (signal.aborted) end();
  });
}
