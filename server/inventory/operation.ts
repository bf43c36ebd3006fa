import { hash } from "node:crypto";

/** The minimum time for which an operation's ID is kept, so that a late retry is recognized: 24 hours. */
export const OPERATION_RETENTION_MS_DEFAULT = 24 * 3_600_000;

/**
 * Identifies an operation's content, in 22 characters. The same ID with another fingerprint is a
 * different operation. 128 bits of SHA-256 over the JSON of the parts.
 */
export function fingerprint(parts: readonly (string | number | bigint | undefined)[]): string {
  const json = JSON.stringify(parts.map((part) => (typeof part === "bigint" ? Number(part) : part)));
  return hash("sha256", json, "base64url").slice(0, 22);
}
