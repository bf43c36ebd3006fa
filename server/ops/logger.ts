import { type Logger, pino } from "pino";
import { build as pretty } from "pino-pretty";

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export const LOG_FORMATS = ["auto", "json", "pretty"] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

/** One JSON object a line on standard output; `auto` makes it readable where that is a terminal. */
export function createLogger(level: LogLevel, format: LogFormat): Logger {
  const isPretty = format === "pretty" || (format === "auto" && process.stdout.isTTY === true);
  const options = { level, base: null, timestamp: pino.stdTimeFunctions.isoTime };
  return isPretty ? pino(options, pretty({ ignore: "pid,hostname" })) : pino(options);
}
