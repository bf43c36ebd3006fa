import { type Duration, type Timestamp, timestampDate, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { InvalidArgumentError } from "commander";

// Values of arguments and options, and how tables show times.

export const QUANTITY_MAX = 2_147_483_647;

/** A parser of whole numbers from `min` to `max` for commander. */
export function wholeNumber(min: number, max: number = QUANTITY_MAX): (text: string) => number {
  return (text) => {
    const value = parseWholeNumber(text, min, max);
    if (value === undefined) throw new InvalidArgumentError(`Give a whole number from ${min} to ${max}.`);
    return value;
  };
}

/** The number, or `undefined` if the text is not one from `min` to `max`. */
export function parseWholeNumber(text: string, min: number, max: number): number | undefined {
  const value = /^[+-]?\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  return value >= min && value <= max ? value + 0 : undefined;
}

/** Parses a price for commander. The server checks the bounds. */
export function price(text: string): number {
  const value = parsePrice(text);
  if (value === undefined) throw new InvalidArgumentError("Give a number such as 12.50.");
  return value;
}

export function parsePrice(text: string): number | undefined {
  return /^[+-]?\d+(\.\d+)?([eE][+-]?\d{1,3})?$/.test(text) ? Number(text) : undefined;
}

const RFC_3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/;
const UNIT_MS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** A time of RFC 3339, with up to nine digits of a second's fraction. */
export function parseTimestamp(text: string): Timestamp | undefined {
  const [, fraction = ""] = RFC_3339.exec(text) ?? [];
  const ms = RFC_3339.test(text) ? Date.parse(text.replace(fraction, "")) : Number.NaN;
  if (Number.isNaN(ms)) return undefined;
  const time = timestampFromMs(ms);
  time.nanos = Number(fraction.slice(1).padEnd(9, "0"));
  return time;
}

/** A parser of times for commander: RFC 3339, or an interval such as `30m` that is subtracted from now, or added. */
export function timeFromNow(direction: "ago" | "ahead"): (text: string) => Timestamp {
  return (text) => {
    const [, count, unit] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
    if (count !== undefined) {
      const ms = Number(count) * UNIT_MS[unit as keyof typeof UNIT_MS];
      return timestampFromMs(Date.now() + (direction === "ago" ? -ms : ms));
    }
    const time = parseTimestamp(text);
    if (time === undefined) {
      throw new InvalidArgumentError("Give a time such as 2026-11-28T12:00:00Z, or 30m, 2h, 7d from now.");
    }
    return time;
  };
}

/** A time for people, in the local time zone: `2026-11-28 12:00:00`. Empty if it is absent. */
export function timeText(time: Timestamp | undefined): string {
  if (time === undefined) return "";
  const date = timestampDate(time);
  const local = new Date(date.getTime() - date.getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 19).replace("T", " ");
}

export function durationMs({ seconds, nanos }: Duration): number {
  return Number(seconds) * 1_000 + nanos / 1_000_000;
}
