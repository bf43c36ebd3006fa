import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, show, Violations } from "../inventory/validation.ts";

// Validation of the fields that requests of several services share.

/** The last second of the year 9999, the end of a Timestamp's range. */
const TIMESTAMP_SECONDS_MAX = 253_402_300_799n;

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
  const match = pattern.exec(Buffer.from(token, "base64url").toString());
  if (match === null) {
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

/** The time in µs since 1970, rounded down. */
export function readTime(
  violations: Violations,
  field: string,
  time: Timestamp | undefined,
): number | undefined {
  if (time === undefined) {
    return undefined;
  }
  if (time.seconds < 0n || time.seconds > TIMESTAMP_SECONDS_MAX) {
    violations.add(field, `is ${time.seconds} seconds since 1970; give a time from 1970 to 9999`);
  }
  if (time.nanos < 0 || time.nanos > 999_999_999) {
    violations.add(field, `has ${time.nanos} nanoseconds; give 0 to 999999999`);
  }
  return Number(time.seconds) * 1_000_000 + Math.floor(time.nanos / 1_000);
}
