const SECOND_MS = 1_000;

type LogFunction = (fields: object, message: string) => void;

/** The methods of a logger that a throttled one has. */
export interface Log {
  readonly debug: LogFunction;
  readonly info: LogFunction;
  readonly warn: LogFunction;
  readonly error: LogFunction;
}

/**
 * A log for events that unauthenticated clients can cause, limited in lines per second so that a flood does not fill the
 * disk. The first line after a gap has the number of omitted lines in `suppressed`. Debug lines are not limited.
 */
export function throttledLog(log: Log, linesPerSecondMax: number): Log {
  let windowStart = Number.NEGATIVE_INFINITY;
  let written = 0;
  let suppressed = 0;

  function write(level: "info" | "warn" | "error", fields: object, message: string): void {
    const now = performance.now();
    if (now - windowStart >= SECOND_MS) {
      windowStart = now;
      written = 0;
    }
    if (written >= linesPerSecondMax) {
      suppressed += 1;
      return;
    }
    written += 1;
    log[level](suppressed > 0 ? { ...fields, suppressed } : fields, message);
    suppressed = 0;
  }

  return {
    debug: (fields, message) => log.debug(fields, message),
    info: (fields, message) => write("info", fields, message),
    warn: (fields, message) => write("warn", fields, message),
    error: (fields, message) => write("error", fields, message),
  };
}
