export interface BackoffLimits {
  readonly firstMs: number;
  readonly mostMs: number;
}

/**
 * How long to wait before attempt `failures + 1`: anything from nothing to twice as much each time, up to the cap ("full
 * jitter"), so that a thousand pages that lost one server do not come back in step.
 */
export function backoffMs(failures: number, limits: BackoffLimits): number {
  return Math.random() * Math.min(limits.mostMs, limits.firstMs * 2 ** Math.min(failures, 16));
}

/** Resolves after `ms`, or as soon as the signal fires. */
export function rest(ms: number, signal: AbortSignal): Promise<void> {
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
