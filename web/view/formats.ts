/** Numbers, prices and times as the visitor writes them. The words of the page are English, so the digits are Latin. */
export interface Formats {
  number(value: number): string;
  price(value: number): string;
  /** "15:04:05" on the day of `nowMs`; with the date, "28 Nov 2026, 15:04:05", on another. */
  time(ms: number, nowMs: number): string;
  /** "28 November 2026 at 15:04:05 UTC", for paper. */
  fullTime(ms: number): string;
}

/** The first of these language tags that this runtime has formats for. */
export function chooseLocale(tags: readonly string[]): string {
  return tags.find((tag) => isSupported(tag)) ?? "en";
}

function isSupported(tag: string): boolean {
  try {
    return Intl.NumberFormat.supportedLocalesOf(tag).length > 0;
  } catch {
    // Not a language tag.
    return false;
  }
}

const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" } as const;
const FORMATS_KEPT_MAX = 100;
const kept = new Map<string, Formats>();

/** `timeZone`: absent for that of the browser. */
export function formatsOf(locale: string, currency: string, timeZone?: "UTC"): Formats {
  const key = `${locale} ${currency} ${timeZone}`;
  let formats = kept.get(key);
  if (formats === undefined) {
    // The locale comes from a header of the request.
    if (kept.size >= FORMATS_KEPT_MAX) kept.clear();
    formats = createFormats(locale, currency, timeZone);
    kept.set(key, formats);
  }
  return formats;
}

function createFormats(locale: string, currency: string, timeZone: "UTC" | undefined): Formats {
  const shared = { numberingSystem: "latn" };
  const zone = { ...shared, calendar: "gregory", timeZone };
  const numbers = new Intl.NumberFormat(locale, shared);
  const prices = new Intl.NumberFormat(locale, { ...shared, style: "currency", currency });
  const clock = new Intl.DateTimeFormat(locale, { ...zone, ...CLOCK });
  const day = { ...zone, day: "numeric", year: "numeric" } as const;
  const dated = new Intl.DateTimeFormat(locale, { ...day, month: "short", ...CLOCK });
  const full = new Intl.DateTimeFormat(locale, { ...day, month: "long", ...CLOCK, timeZoneName: "short" });
  const dayOf = new Intl.DateTimeFormat("en", { dateStyle: "short", timeZone });
  const isSameDay = (a: number, b: number): boolean => dayOf.format(a) === dayOf.format(b);
  const suffix = timeZone === undefined ? "" : ` ${timeZone}`;
  return {
    number: (value) => numbers.format(value),
    price: (value) => prices.format(value),
    time: (ms, nowMs) => `${(isSameDay(ms, nowMs) ? clock : dated).format(ms)}${suffix}`,
    fullTime: (ms) => full.format(ms),
  };
}

const MINUTE_MS = 60_000;

/** "3 minutes old", "2 hours old"; empty below a minute. */
export function ageText(ms: number, nowMs: number): string {
  const minutes = Math.floor((nowMs - ms) / MINUTE_MS);
  if (minutes < 1) return "";
  if (minutes < 120) return `${minutes} ${minutes === 1 ? "minute" : "minutes"} old`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} hours old` : `${Math.floor(hours / 24)} days old`;
}
