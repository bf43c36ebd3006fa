import { type HttpRequest, type HttpResponse, respondWithText } from "./message.ts";

/** Why a request is refused before a handler runs. */
export interface Refusal {
  readonly status: number;
  /** One sentence for the caller: what was wrong, with the value that was received. */
  readonly message: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Responds with a refusal in a form that the caller of this request reads. */
export type Refuse = (request: HttpRequest, response: HttpResponse, refusal: Refusal) => void;

export const refuseWithText: Refuse = (_request, response, { status, message, headers }) =>
  respondWithText(response, status, message, headers);

/** Longest part of a received value that a refusal repeats. */
const QUOTED_CHARACTERS_MAX = 100;

/** A received value, quoted for a message. */
export function quote(value: string): string {
  return JSON.stringify(
    value.length > QUOTED_CHARACTERS_MAX ? `${value.slice(0, QUOTED_CHARACTERS_MAX)}…` : value,
  );
}

/** The methods of a resource that can only be read. */
export const READ_METHODS = ["GET", "HEAD", "OPTIONS"] as const;

/**
 * Responds to a method that a resource does not have, and to OPTIONS, and returns whether it did. RFC 9110 requires `Allow`
 * with 405 (section 15.5.6).
 */
export function handleOptionsOrDisallowed(
  request: HttpRequest,
  response: HttpResponse,
  allowed: readonly string[] = READ_METHODS,
): boolean {
  const { method = "" } = request;
  if (method !== "OPTIONS" && allowed.includes(method)) {
    return false;
  }
  const headers = { allow: allowed.join(", ") };
  if (method === "OPTIONS" && allowed.includes(method)) {
    response.statusCode = 204;
    response.setHeader("allow", headers.allow);
    response.end();
  } else {
    respondWithText(
      response,
      405,
      `The method ${quote(method)} is not allowed here; allowed: ${headers.allow}`,
      headers,
    );
  }
  return true;
}
