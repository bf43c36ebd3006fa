import type { IncomingHttpHeaders } from "node:http";

// Brings the header fields that select a representation into one spelling, so that handlers can compare them as strings.

const TOKEN = "[!#$%&'*+.^_`|~\\w-]+";
const QUOTED_STRING = '"(?:[^"\\\\]|\\\\.)*"';
/** `media-type` of RFC 9110, section 8.3.1, with the empty parameters of section 5.6.6. */
const MEDIA_TYPE = new RegExp(
  `^(${TOKEN}/${TOKEN})((?:[ \\t]*;[ \\t]*(?:${TOKEN}=(?:${TOKEN}|${QUOTED_STRING}))?)*)[ \\t]*$`,
);
const PARAMETER = new RegExp(`;[ \\t]*(${TOKEN})=(?:(${TOKEN})|(${QUOTED_STRING}))`, "g");
const JSON_TYPE = /[/+]json$/;
/** JSON is UTF-8 (RFC 8259, section 8.1). US-ASCII is a subset of it. */
const JSON_CHARSETS: ReadonlySet<string> = new Set(["utf-8", "utf8", "us-ascii"]);
const PLAIN_TYPE = /^[a-z0-9.+/-]+$/;

/** The content codings that `*` in `Accept-Encoding` stands for. */
const CODINGS = ["br", "gzip", "identity"];
const CODING_HEADERS = ["content-encoding", "grpc-encoding", "connect-content-encoding"] as const;
const ACCEPT_HEADERS = ["accept-encoding", "grpc-accept-encoding", "connect-accept-encoding"] as const;
/** What a coding, or a list of codings, has only where it needs rewriting: capitals, weights, `*`, the prefix of `x-gzip`. */
const NEEDS_REWRITING = /[A-Z;*]|x-|^\s*$/;

/** Rewrites `Content-Type` and the fields that name codings in place. Values that are malformed stay as they are. */
export function normalizeHeaders(headers: IncomingHttpHeaders): void {
  const type = headers["content-type"];
  if (type !== undefined && !PLAIN_TYPE.test(type)) {
    headers["content-type"] = normalizeMediaType(type);
  }
  for (const name of CODING_HEADERS) {
    const coding = headers[name];
    if (coding !== undefined && NEEDS_REWRITING.test(String(coding))) {
      headers[name] = normalizeCoding(String(coding));
    }
  }
  for (const name of ACCEPT_HEADERS) {
    const codings = headers[name];
    if (codings !== undefined && NEEDS_REWRITING.test(String(codings))) {
      headers[name] = acceptableCodings(String(codings)).join(", ");
    }
  }
}

/**
 * A media type in lower case without its parameters. A JSON type keeps a `charset` that is not UTF-8; the
 * request is then answered with 415.
 *
 * @example 'Application/JSON; charset="UTF-8"; v=1' → 'application/json'
 */
export function normalizeMediaType(value: string): string {
  const [, type, parameters = ""] = MEDIA_TYPE.exec(value) ?? [];
  if (type === undefined) {
    return value;
  }
  const name = type.toLowerCase();
  if (!JSON_TYPE.test(name)) {
    return name;
  }
  const unreadable = [...parameters.matchAll(PARAMETER)]
    .filter(([, parameter]) => parameter?.toLowerCase() === "charset")
    .map(([, , token, quoted]) => (token ?? unquote(quoted ?? "")).toLowerCase())
    .find((charset) => !JSON_CHARSETS.has(charset));
  return unreadable === undefined ? name : `${name}; charset=${JSON.stringify(unreadable)}`;
}

function unquote(text: string): string {
  return text.slice(1, -1).replace(/\\(.)/g, "$1");
}

/** Content codings are case-insensitive, and `x-gzip` is `gzip` (RFC 9110, section 8.4.1). */
function normalizeCoding(coding: string): string {
  const name = coding.trim().toLowerCase();
  return name === "x-gzip" ? "gzip" : name;
}

/**
 * The codings of an `Accept-Encoding` field that have a weight above 0, in order of preference (RFC 9110, section 12.5.3).
 * `identity` where there are none, since the field is present.
 */
function acceptableCodings(value: string): string[] {
  const weights = new Map<string, number>();
  for (const item of value.split(",")) {
    const [name = "", ...parameters] = item.split(";").map((part) => part.trim());
    const weight = parameters.find((parameter) => /^q=/i.test(parameter))?.slice(2);
    if (name !== "") weights.set(normalizeCoding(name), weight === undefined ? 1 : Number(weight));
  }
  const weightOfOthers = weights.get("*");
  weights.delete("*");
  if (weightOfOthers !== undefined) {
    for (const name of CODINGS) if (!weights.has(name)) weights.set(name, weightOfOthers);
  }
  const acceptable = [...weights].filter(([, weight]) => weight > 0);
  acceptable.sort(([, one], [, other]) => other - one);
  return acceptable.length === 0 ? ["identity"] : acceptable.map(([name]) => name);
}
