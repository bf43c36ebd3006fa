import { createHash } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";

/** Characters kept of the hash: 132 bits, so that two bodies do not share a tag by chance. */
const TAG_CHARACTERS = 22;
/** `entity-tag` of RFC 9110, section 8.8.3: whether it is weak, and its value. */
const ENTITY_TAG = /(W\/)?"([^"]*)"/g;

/** The entity tag of these bytes, without the quotes of the `ETag` header. */
export function etagOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("base64url").slice(0, TAG_CHARACTERS);
}

/** What the preconditions of a GET or HEAD demand instead of the representation. */
export type Precondition = 304 | 412 | undefined;

/**
 * Evaluates `If-Match` and `If-None-Match` (RFC 9110, section 13.2.2) for a representation that exists. `isCurrent` compares
 * one entity tag, without its quotes. No resource has a modification date, so the fields with dates are ignored.
 */
export function evaluatePreconditions(
  headers: IncomingHttpHeaders,
  isCurrent: (tag: string) => boolean,
): Precondition {
  const { "if-match": ifMatch, "if-none-match": ifNoneMatch } = headers;
  if (ifMatch !== undefined && !includesCurrent(ifMatch, isCurrent, "strong")) {
    return 412;
  }
  // Weak comparison: a proxy that compresses a response weakens its tag.
  return ifNoneMatch !== undefined && includesCurrent(ifNoneMatch, isCurrent, "weak") ? 304 : undefined;
}

function includesCurrent(
  list: string,
  isCurrent: (tag: string) => boolean,
  comparison: "strong" | "weak",
): boolean {
  return (
    list.trim() === "*" ||
    [...list.matchAll(ENTITY_TAG)].some(
      ([, weak, tag = ""]) => (comparison === "weak" || weak === undefined) && isCurrent(tag),
    )
  );
}
