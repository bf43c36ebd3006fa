const DAY_SECONDS = 86_400;
/** Days whose dates are remembered: nearly all times that are written are of few days. */
const DATES_MAX = 1_000;

const dates = new Map<number, string>();
const twoDigits = Array.from({ length: 60 }, (_, value) => String(value).padStart(2, "0"));

/**
 * A time in µs since 1970 as protobuf JSON writes it: RFC 3339 in UTC with 0, 3 or 6 fractional digits. `Date` writes only the
 * date, because it takes three times as long for the whole, twice for every change that is published.
 */
export function timeText(micros: number): string {
  const seconds = Math.floor(micros / 1_000_000);
  const day = Math.floor(seconds / DAY_SECONDS);
  const second = seconds - day * DAY_SECONDS;
  const minute = Math.floor(second / 60);
  const hours = twoDigits[Math.floor(minute / 60)];
  return `${dateText(day)}T${hours}:${twoDigits[minute % 60]}:${twoDigits[second % 60]}${fractionText(micros - seconds * 1_000_000)}Z`;
}

function dateText(day: number): string {
  const known = dates.get(day);
  if (known !== undefined) {
    return known;
  }
  if (dates.size === DATES_MAX) {
    dates.clear();
  }
  const iso = new Date(day * DAY_SECONDS * 1_000).toISOString();
  const text = iso.slice(0, iso.indexOf("T"));
  dates.set(day, text);
  return text;
}

function fractionText(micros: number): string {
  if (micros === 0) {
    return "";
  }
  return micros % 1_000 === 0
    ? `.${String(micros / 1_000).padStart(3, "0")}`
    : `.${String(micros).padStart(6, "0")}`;
}
