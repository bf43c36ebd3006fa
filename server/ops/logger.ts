import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { type Logger, pino } from "pino";
import { build as pretty } from "pino-pretty";

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export const LOG_FORMATS = ["auto", "json", "pretty"] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

/** How long the end of the process waits for a blocked reader of the log, ms. */
const LAST_LINES_WAIT_MS = 1_000;

export interface ProcessLog {
  readonly log: Logger;
  /** Flushes queued lines. Await it before `process.exit`, which drops a line that is being written. */
  readonly end: () => Promise<void>;
}

/** One JSON object per line on standard output. `auto` formats for people if standard output is a terminal. */
export function openLog(level: LogLevel, format: LogFormat): ProcessLog {
  const isPretty = format === "pretty" || (format === "auto" && process.stdout.isTTY === true);
  const output = pino.destination(1);
  const stream = isPretty ? pretty({ ignore: "pid,hostname", destination: output }) : output;
  return {
    log: pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, stream),
    end: async () => {
      const closed = once(output, "close");
      stream.end();
      await Promise.race([closed, delay(LAST_LINES_WAIT_MS)]);
    },
  };
}
