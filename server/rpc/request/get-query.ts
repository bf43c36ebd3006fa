import { Code, ConnectError } from "@connectrpc/connect";
import { isBase64 } from "./base64.ts";

/** The parameters of a Connect GET (https://connectrpc.com/docs/protocol/#unary-get-request). */
const PARAMETERS: ReadonlySet<string> = new Set(["connect", "encoding", "base64", "compression", "message"]);

/**
 * Throws INVALID_ARGUMENT where the query of a GET is not what the Connect protocol allows. Connect itself takes the first
 * of several values, replaces bytes that are not UTF-8, and skips characters that are not base64.
 */
export function checkGetQuery(url: string): void {
  const question = url.indexOf("?");
  const values = new Map<string, string>();
  for (const pair of question < 0 ? [] : url.slice(question + 1).split("&")) {
    const equals = pair.indexOf("=");
    const name = decode("The name of a query parameter", equals < 0 ? pair : pair.slice(0, equals));
    if (!PARAMETERS.has(name)) {
      continue;
    }
    if (values.has(name)) {
      throw invalid(`The query has more than one value of ${name}`);
    }
    values.set(name, decode(`The query parameter ${name}`, equals < 0 ? "" : pair.slice(equals + 1)));
  }
  const version = values.get("connect");
  if (version !== undefined && version !== "v1") {
    throw invalid(`The query parameter connect is ${JSON.stringify(version)}; the supported version is "v1"`);
  }
  const message = values.get("message");
  if (message === undefined) {
    throw invalid("The query has no message");
  }
  const base64 = values.get("base64");
  if (base64 !== undefined && base64 !== "1") {
    throw invalid(`The query parameter base64 is ${JSON.stringify(base64)}; give "1", or leave it out`);
  }
  if (base64 === "1" && !isBase64(message)) {
    throw invalid(
      "The query parameter message is not valid base64; send + as %2B, or use the URL-safe alphabet",
    );
  }
}

/** Decodes `application/x-www-form-urlencoded`, which `URLSearchParams` does without an error. */
function decode(what: string, text: string): string {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    throw invalid(`${what} is not valid percent-encoded UTF-8`);
  }
}

function invalid(message: string): ConnectError {
  return new ConnectError(message, Code.InvalidArgument);
}
