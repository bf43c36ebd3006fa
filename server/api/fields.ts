import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";
import type { EventTime } from "../inventory/product-event.ts";
import { timeText } from "../inventory/time-text.ts";
import { PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, show, Violations } from "../inventory/validation.ts";

// Validation of the fields that requests of several services share.

/** The first second of the year 1 and the last one of the year 9999, the range of a Timestamp in JSON. */
const TIMESTAMP_SECONDS_MIN = -62_135_596_800n;
const TIMESTAMP_SECONDS_MAX = 253_402_300_799n;
const NANOS_MAX = 999_999_999;
const NANOS_PER_SECOND = 1_000_000_000n;
const NANOS_PER_MS = 1_000_000n;

/** Validates a request whose only field is an ID. */
export function readId(field: string, id: string): string {
  const violations = new Violations();
  violations.id(field, id);
  violations.throwIfAny();
  return id;
}

/** A page token is opaque to clients, which return it unchanged. */
export function encodeToken(content: string): string {
  return Buffer.from(content).toString("base64url");
}

/** The content of a token, or `undefined` if the token is empty or invalid. */
export function decodeToken(
  violations: Violations,
  token: string,
  pattern: RegExp,
): RegExpExecArray | undefined {
  if (token === "") {
    return undefined;
  }
  const content = Buffer.from(token, "base64url").toString();
  const match = pattern.exec(content);
  // The decoder ignores characters that are not base64url, so the content must encode to the same token.
  if (match === null || encodeToken(content) !== token) {
    violations.add(
      "page_token",
      `is ${show(token)}; give the next_page_token of the previous page, unchanged`,
    );
    return undefined;
  }
  return match;
}

export function readPageSize(violations: Violations, pageSize: number): number {
  if (pageSize === 0) {
    return PAGE_SIZE_DEFAULT;
  }
  violations.integer("page_size", pageSize, 1, PAGE_SIZE_MAX);
  return pageSize;
}

/** The time of a seller's event, rounded down to µs, and its text with nanoseconds. */
export function readEventTime(violations: Violations, time: Timestamp | undefined): EventTime {
  return {
    updateTimeMicros: readTime(violations, "update_time", time),
    updateTimeText: time && textOfTime(time),
  };
}

/** The time in µs since 1970, rounded down. */
export function readTime(
  violations: Violations,
  field: string,
  time: Timestamp | undefined,
): number | undefined {
  if (time === undefined) {
    return undefined;
  }
  const { seconds, nanos } = time;
  if (nanos < 0 || nanos > NANOS_MAX) {
    violations.add(field, `has ${nanos} nanoseconds; give 0 to ${NANOS_MAX}`);
  } else if (seconds < 0n || seconds > TIMESTAMP_SECONDS_MAX) {
    violations.add(field, `is ${textOfTime(time)}; give a time from 1970 to 9999`);
  }
  return Number(seconds) * 1_000_000 + Math.floor(nanos / 1_000);
}

/** A time as protobuf JSON writes it, with all its nanoseconds; as seconds where JSON has no such time. */
function textOfTime({ seconds, nanos }: Timestamp): string {
  if (seconds < TIMESTAMP_SECONDS_MIN || seconds > TIMESTAMP_SECONDS_MAX) {
    return `${decimal(seconds, nanos)} seconds since 1970`;
  }
  return timeText(Number(seconds) * 1_000_000).replace("Z", `${fraction(nanos)}Z`);
}

/** A duration from `minMs` to `maxMs`, both inclusive, in ms with fractions. */
export function readDuration(
  violations: Violations,
  field: string,
  { seconds, nanos }: Duration,
  minMs: number,
  maxMs: number,
): number {
  if (Math.abs(nanos) > NANOS_MAX || (seconds > 0n && nanos < 0) || (seconds < 0n && nanos > 0)) {
    violations.add(
      field,
      `has ${seconds} seconds and ${nanos} nanoseconds; give both the same sign, and at most ${NANOS_MAX} nanoseconds`,
    );
    return minMs;
  }
  // Compared in whole nanoseconds: a double would round a duration just out of bounds to the bound.
  const total = seconds * NANOS_PER_SECOND + BigInt(nanos);
  if (total < BigInt(minMs) * NANOS_PER_MS || total > BigInt(maxMs) * NANOS_PER_MS) {
    violations.add(field, `is ${decimal(seconds, nanos)}s; give ${minMs / 1_000}s to ${maxMs / 1_000}s`);
    return minMs;
  }
  return Number(total) / Number(NANOS_PER_MS);
}

/** Seconds with nanoseconds of the same sign, as protobuf JSON writes a duration. */
function decimal(seconds: bigint, nanos: number): string {
  const sign = seconds < 0n || nanos < 0 ? "-" : "";
  return `${sign}${seconds < 0n ? -seconds : seconds}${fraction(Math.abs(nanos))}`;
}

/** The fraction of a second with 0, 3, 6 or 9 digits, as protobuf JSON writes it. */
function fraction(nanos: number): string {
  return nanos === 0
    ? ""
    : `.${String(nanos)
        .padStart(9, "0")
        .replace(/(?:000){1,2}$/, "")}`;
}
