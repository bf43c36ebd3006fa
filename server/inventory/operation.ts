import { createHash } from "node:crypto";

/** How many of a product's changes `listChanges` can look back on. */
export const CHANGES_KEPT_PER_PRODUCT = 100;

/** How long an operation's ID is remembered at least, so that a late retry is told apart: 24 hours. */
export const OPERATION_RETENTION_MS_DEFAULT = 24 * 3_600_000;

/**
 * What an operation asked for, in 22 characters: the same ID with another fingerprint is another
 * operation. 128 bits of SHA-256 over the JSON of its parts.
 */
export function fingerprint(parts: readonly (string | number | undefined)[]): string {
  return createHash("sha256").update(JSON.stringify(parts)).digest("base64url").slice(0, 22);
}
