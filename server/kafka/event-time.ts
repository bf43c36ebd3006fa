/** The latest time that is exact in µs and that Redis's scripts keep exact: in the year 2255. */
export const TIME_MICROS_MAX = Number.MAX_SAFE_INTEGER;

/** What Go's encoder writes for a time that was never set. */
const GO_ZERO_TIME = "0001-01-01T00:00:00Z";

const RFC3339 =
  /^(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d{2}):(\d{2}))$/;

/**
 * Reads RFC 3339 with up to nine digits of the second as µs since 1970; digits past the sixth are
 * cut off. `Date` would keep milliseconds only, and two updates within one would then be one.
 * `"unset"` for Go's zero time, `"malformed"` for what is no time.
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
  // A day that the month does not have rolls over.
  if (midnight.getUTCMonth() !== month - 1 || midnight.getUTCDate() !== day) {
    return "malformed";
  }
  const offsetSeconds = (sign === "-" ? -1 : 1) * (Number(offsetHours) * 3_600 + Number(offsetMinutes) * 60);
  const seconds = midnight.getTime() / 1_000 + hour * 3_600 + minute * 60 + second - offsetSeconds;
  return seconds * 1_000_000 + Number(fraction.padEnd(6, "0").slice(0, 6));
}
