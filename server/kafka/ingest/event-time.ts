/** The latest time, in µs since 1970, that a double represents exactly, here and in Redis scripts. It is in the year 2255. */
export const TIME_MICROS_MAX = Number.MAX_SAFE_INTEGER;

/** Go's JSON encoding of a zero `time.Time`. */
const GO_ZERO_TIME = "0001-01-01T00:00:00Z";

const RFC3339 = /^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:[Zz]|[+-]\d{2}:\d{2})$/;
const ZERO = "0".charCodeAt(0);
const FRACTION_AT = 20;
const OFFSET_LENGTH = "+00:00".length;
const DAYS_OF_MONTHS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/**
 * Parses RFC 3339 with up to nine fractional digits into µs since 1970. Digits after the sixth are truncated. `Date` is
 * not used because it keeps milliseconds only, which would merge two updates within one millisecond. Returns `"unset"`
 * for Go's zero time and `"malformed"` for anything that is not a time.
 */
export function readTime(text: string): number | "unset" | "malformed" {
  if (text === GO_ZERO_TIME) {
    return "unset";
  }
  if (!RFC3339.test(text)) {
    return "malformed";
  }
  const year = digits(text, 0, 4);
  const month = digits(text, 5, 7);
  const day = digits(text, 8, 10);
  const hour = digits(text, 11, 13);
  const minute = digits(text, 14, 16);
  const second = digits(text, 17, 19);
  const isUtc = text.endsWith("Z") || text.endsWith("z");
  const zoneAt = text.length - (isUtc ? 1 : OFFSET_LENGTH);
  const offsetHours = isUtc ? 0 : digits(text, zoneAt + 1, zoneAt + 3);
  const offsetMinutes = isUtc ? 0 : digits(text, zoneAt + 4, zoneAt + 6);
  if (
    day < 1 ||
    day > daysOf(year, month) ||
    hour > 23 ||
    minute > 59 ||
    second > 59 ||
    offsetHours > 23 ||
    offsetMinutes > 59
  ) {
    return "malformed";
  }
  const offsetSeconds = (text[zoneAt] === "-" ? -1 : 1) * (offsetHours * 3_600 + offsetMinutes * 60);
  const seconds = midnightSeconds(year, month, day) + hour * 3_600 + minute * 60 + second - offsetSeconds;
  return seconds * 1_000_000 + microsOf(text, zoneAt);
}

/** The number that the digits from `from` to before `to` make. */
function digits(text: string, from: number, to: number): number {
  let value = 0;
  for (let at = from; at < to; at++) {
    value = value * 10 + text.charCodeAt(at) - ZERO;
  }
  return value;
}

/** The fraction of a second before `end`, truncated to µs. */
function microsOf(text: string, end: number): number {
  const to = Math.min(end, FRACTION_AT + 6);
  return to <= FRACTION_AT ? 0 : digits(text, FRACTION_AT, to) * 10 ** (FRACTION_AT + 6 - to);
}

/** 0 for a month that does not exist. */
function daysOf(year: number, month: number): number {
  const isLeapYear = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  return month === 2 && isLeapYear ? 29 : (DAYS_OF_MONTHS[month - 1] ?? 0);
}

function midnightSeconds(year: number, month: number, day: number): number {
  // Date.UTC adds 1900 to a year below 100. The calendar repeats after 400 years, of 146,097 days.
  return Date.UTC(year + 400, month - 1, day) / 1_000 - 146_097 * 86_400;
}
