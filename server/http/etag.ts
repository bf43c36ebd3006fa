import { createHash } from "node:crypto";

/** Of the hash: 132 bits, far from any chance of two bodies with one tag. */
const TAG_CHARACTERS = 22;

/** What stands for these bytes, without the quotes that an `ETag` wears. */
export function etagOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("base64url").slice(0, TAG_CHARACTERS);
}

/**
 * The tags of an `If-None-Match`, without quotes. Weak ones as well (RFC 9110, section 13.1.2): a proxy that
 * compresses makes a tag weak.
 */
export function etagsIn(ifNoneMatch: string | undefined): string[] {
  return (ifNoneMatch ?? "").split(",").map((tag) => tag.trim().replace(/^W\//, "").replace(/^"|"$/g, ""));
}
