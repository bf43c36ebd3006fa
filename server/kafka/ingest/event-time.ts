/** The latest time, in µs since 1970, that a double represents exactly, here and in Redis scripts. It is in the year 2255. */
export const TIME_MICROS_MAX = Number.MAX_SAFE_INTEGER;

/** Go's JSON encoding of a zero `time.Time`. */
const GO_ZERO_TIME = "0001-01-01T00:00:00Z";

const RFC3339 =
  /^(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d{2}):(\d{2}))$/;

/**
 * Parses RFC 3339 with up to nine fractional digits into µs since 1970. Digits after the sixth are truncated. `Date` is
 * not used because it keeps milliseconds only, which would merge two updates within one millisecond. Returns `"unset"`
 * for Go's zero time and `"malformed"` for anything that is not a time.
 */
export function readTime(text: string): number | "unset" | "malformed" {
  if (text === GO_ZERO_TIME) {
    return "unset";
  }
  const match = RFC3339.exec(text);
  if (match === null) {
    return "malformed";
  }
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map(Number);
  const [fraction = "", sign, offsetHours = "0", offsetMinutes = "0"] = match.slice(7);
  if (
    year === undefined ||
    month === undefined ||
    day === undefined ||
    hour === undefined ||
    minute === undefined ||
    second === undefined ||
    hour > 23 ||
    minute > 59 ||
    second > 59 ||
    Number(offsetHours) > 23 ||
    Number(offsetMinutes) > 59
  ) {
    return "malformed";
  }
  const midnight = new Date(0);
  midnight.setUTCFullYear(year, month - 1, day);
  // `Date` rolls a day that the month does not have over into the next month.
  if (midnight.getUTCMonth() !== month - 1 || midnight.getUTCDate() !== day) {
    return "malformed";
  }
  const offsetSeconds = (sign === "-" ? -1 : 1) * (Number(offsetHours) * 3_600 + Number(offsetMinutes) * 60);
  const seconds = midnight.getTime() / 1_000 + hour * 3_600 + minute * 60 + second - offsetSeconds;
  return seconds * 1_000_000 + Number(fraction.padEnd(6, "0").slice(0, 6));
}
