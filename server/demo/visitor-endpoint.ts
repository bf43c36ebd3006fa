import { callerOf, clientBehind } from "../http/caller.ts";
import { externalNetworkOf } from "../http/client-network.ts";
import { type HttpRequest, type HttpResponse, type RequestHandler, setHead } from "../http/message.ts";
import { handleOptionsOrDisallowed } from "../http/refusal.ts";
import type { TrustedProxies } from "../http/trusted-proxies.ts";
import {
  VisitorRefusal,
  type VisitorRefusalReason,
  type VisitorReservations,
} from "./visitor-reservations.ts";

/** A body has two IDs. */
const BODY_BYTES_MAX = 1_024;

const ACTIONS = ["reserve", "commit", "release"] as const;
type Action = (typeof ACTIONS)[number];

const STATUSES: Readonly<Record<VisitorRefusalReason, number>> = {
  invalid: 400,
  unknown_product: 404,
  sold_out: 409,
  reused: 409,
  ended: 410,
  limited: 429,
  unavailable: 503,
};

interface VisitorEndpointOptions {
  readonly visitors: VisitorReservations;
  readonly proxies: TrustedProxies;
}

/** A request is refused before it reaches the reservations. */
class RequestRefusal extends Error {
  readonly status: number;
  readonly reason: string;

  constructor(status: number, reason: string, message: string) {
    super(message);
    this.status = status;
    this.reason = reason;
  }
}

/**
 * The paths by which visitors of the demo change stock: POST `/demo/reserve` with `{"reservationId": "…",
 * "productId": "…"}`, and `/demo/commit` and `/demo/release` with the ID of the reservation. All bodies are JSON. A
 * response to `reserve` has `expiresInMs`; an error has `reason` and `message`. Only the page itself may call them: a
 * request from another site is refused, and so is one that does not say where it comes from.
 */
export function createVisitorEndpoint({ visitors, proxies }: VisitorEndpointOptions): RequestHandler {
  const run = async (action: Action, request: HttpRequest): Promise<object> => {
    checkOrigin(request);
    const { reservationId, productId } = await readBody(request);
    if (action === "reserve") {
      const { address } = clientBehind(callerOf(request), request.headers, proxies);
      const visitor = externalNetworkOf(address) ?? address;
      return { expiresInMs: Math.floor(await visitors.reserve(visitor, reservationId, productId)) };
    }
    await visitors[action](reservationId);
    return {};
  };
  return (request, response, path) => {
    const action = ACTIONS.find((each) => path === `/demo/${each}`);
    if (action === undefined) {
      return false;
    }
    if (!handleOptionsOrDisallowed(request, response, ["POST", "OPTIONS"])) {
      run(action, request).then(
        (body) => respond(response, 200, body),
        (error: unknown) => respondWithError(response, error),
      );
    }
    return true;
  };
}

/**
 * Refuses requests of other sites (cross-site request forgery). Browsers send `Sec-Fetch-Site` to HTTPS and to
 * loopback addresses. Elsewhere the host of `Origin` must be the one that the request was sent to.
 */
function checkOrigin({ headers }: HttpRequest): void {
  const site = headers["sec-fetch-site"];
  const { origin } = headers;
  const host = headers[":authority"] ?? headers.host;
  const isSameOrigin =
    site === undefined
      ? origin !== undefined && URL.parse(origin)?.host === host
      : String(site) === "same-origin";
  if (!isSameOrigin) {
    throw new RequestRefusal(
      403,
      "cross_origin",
      `Only the page of this server may send this request; Sec-Fetch-Site is ${quoted(site)}, Origin is ${quoted(origin)}`,
    );
  }
}

function quoted(value: string | string[] | undefined): string {
  return value === undefined ? "absent" : JSON.stringify(String(value).slice(0, 100));
}

async function readBody(request: HttpRequest): Promise<{ reservationId: string; productId: string }> {
  const type = request.headers["content-type"];
  if (type !== "application/json") {
    throw new RequestRefusal(415, "invalid", `Content-Type is ${quoted(type)}; send application/json`);
  }
  let text = "";
  request.setEncoding("utf8");
  // Destroying the request would close the connection before the refusal is sent.
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<string>) {
    text += chunk;
    if (text.length > BODY_BYTES_MAX) {
      throw new RequestRefusal(413, "invalid", `The body has more than ${BODY_BYTES_MAX} bytes`);
    }
  }
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    throw new RequestRefusal(400, "invalid", `The body is not JSON: ${quoted(text)}`);
  }
  const { reservationId, productId } = (body ?? {}) as Record<string, unknown>;
  const textOf = (value: unknown): string => (typeof value === "string" ? value : "");
  return { reservationId: textOf(reservationId), productId: textOf(productId) };
}

function respondWithError(response: HttpResponse, error: unknown): void {
  if (error instanceof RequestRefusal) {
    respond(response, error.status, { reason: error.reason, message: error.message });
  } else if (error instanceof VisitorRefusal) {
    const { reason, message, retryAfterMs } = error;
    const retryAfter =
      retryAfterMs === undefined ? {} : { "retry-after": String(Math.ceil(retryAfterMs / 1_000)) };
    respond(response, STATUSES[reason], { reason, message }, retryAfter);
  } else {
    // The client ended its request before the body was complete.
    response.destroy();
  }
}

function respond(
  response: HttpResponse,
  status: number,
  body: object,
  headers: Readonly<Record<string, string>> = {},
): void {
  setHead(response, status, { "content-type": "application/json", "cache-control": "no-store", ...headers });
  response.end(`${JSON.stringify(body)}\n`);
}
