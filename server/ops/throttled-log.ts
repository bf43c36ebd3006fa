const SECOND_MS = 1_000;

type Tell = (fields: object, message: string) => void;

/** The part of a logger that a throttled one has. */
export interface Log {
  readonly debug: Tell;
  readonly info: Tell;
  readonly warn: Tell;
  readonly error: Tell;
}

/**
 * A log for what strangers can cause: so many lines a second, so that no flood fills a disk. The next line after a gap
 * says in `suppressed` how many were left out. Lines for debugging are not counted.
 */
export function throttledLog(log: Log, linesPerSecondMax: number): Log {
  let secondBeganAt = Number.NEGATIVE_INFINITY;
  let told = 0;
  let suppressed = 0;

  function tell(level: "info" | "warn" | "error", fields: object, message: string): void {
    const now = performance.now();
    if (now - secondBeganAt >= SECOND_MS) {
      secondBeganAt = now;
      told = 0;
    }
    if (told >= linesPerSecondMax) {
      suppressed += 1;
      return;
    }
    told += 1;
    log[level](suppressed > 0 ? { ...fields, suppressed } : fields, message);
    suppressed = 0;
  }

  return {
    debug: (fields, message) => log.debug(fields, message),
    info: (fields, message) => tell("info", fields, message),
    warn: (fields, message) => tell("warn", fields, message),
    error: (fields, message) => tell("error", fields, message),
  };
}
