import { createHash } from "node:crypto";

/** Characters kept of the hash: 132 bits, so that two bodies do not share a tag by chance. */
const TAG_CHARACTERS = 22;

/** The entity tag of these bytes, without the quotes of the `ETag` header. */
export function etagOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("base64url").slice(0, TAG_CHARACTERS);
}

/**
 * The tags of an `If-None-Match` header, without quotes. The comparison is weak (RFC 9110, section 13.1.2): a proxy
 * that compresses a response weakens its tag.
 */
export function etagsIn(ifNoneMatch: string | undefined): string[] {
  return (ifNoneMatch ?? "").split(",").map((tag) => tag.trim().replace(/^W\//, "").replace(/^"|"$/g, ""));
}
