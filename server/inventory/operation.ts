import { createHash } from "node:crypto";

/** The minimum time for which an operation's ID is kept, so that a late retry is recognized: 24 hours. */
export const OPERATION_RETENTION_MS_DEFAULT = 24 * 3_600_000;

/**
 * Identifies an operation's content, in 22 characters. The same ID with another fingerprint is a
 * different operation. 128 bits of SHA-256 over the JSON of the parts.
 */
export function fingerprint(parts: readonly (string | number | bigint | undefined)[]): string {
  const json = JSON.stringify(parts, (_, part) => (typeof part === "bigint" ? Number(part) : part));
  return createHash("sha256").update(json).digest("base64url").slice(0, 22);
}
