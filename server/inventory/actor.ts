/** The longest name in a change, in bytes of UTF-8: that of an OpenID Connect subject, and of `kafka:` with the longest topic. */
export const ACTOR_BYTES_MAX = 255;

/** The actor of a reservation's expiry. */
export const EXPIRY_ACTOR = "system:expiry";

const PLAIN = /^[\x20-\x7e]{1,255}$/;
const RESERVED_PREFIX = /^(?:system|kafka):/;
/** Control and format characters, line separators, lone surrogates: they could forge or hide a line where a change is shown. */
const NOT_PRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** Who caused a change, as a request states it. */
export interface Acting {
  /** From `callerActor` or `topicActor`. Absent or empty: unknown. */
  readonly actor?: string | undefined;
}

/**
 * The actor of an authenticated caller: its name, with U+FFFD for characters that cannot be shown, cut to 255 bytes. The
 * prefixes `system:` and `kafka:` are this service's own; a name with one of them gets `caller:` in front.
 */
export function callerActor(name: string): string {
  const isReserved = RESERVED_PREFIX.test(name);
  if (PLAIN.test(name) && !isReserved) {
    return name;
  }
  return truncate(`${isReserved ? "caller:" : ""}${name.replace(NOT_PRINTABLE, "\uFFFD")}`);
}

/** The actor of a seller's event. A topic's name has at most 249 ASCII characters. */
export function topicActor(topic: string): string {
  return `kafka:${topic}`;
}

/** Cuts between code points. */
function truncate(text: string): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= ACTOR_BYTES_MAX) {
    return text;
  }
  let end = ACTOR_BYTES_MAX;
  while (((bytes[end] ?? 0) & 0b1100_0000) === 0b1000_0000) {
    end -= 1;
  }
  return bytes.toString("utf8", 0, end);
}
