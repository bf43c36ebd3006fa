import { cors } from "@connectrpc/connect";
import { NO_HEADERS, STALE_HEADER } from "./headers.ts";
import { type HttpRequest, type HttpResponse, respondWithText, setHeaders } from "./message.ts";
import { quote } from "./refusal.ts";

/** What storefronts may call from their own pages: shoppers' reads, and nothing that changes stock. */
const SHARED_PATH = "/inventory.v1.StockService/";

/** Seconds for which a browser may cache a preflight response. Two hours: Chrome's maximum. */
const PREFLIGHT_SECONDS = 7_200;

const PREFLIGHT_HEADERS = {
  "access-control-allow-methods": cors.allowedMethods.join(", "),
  "access-control-allow-headers": cors.allowedHeaders.join(", ").toLowerCase(),
  "access-control-max-age": String(PREFLIGHT_SECONDS),
};

/** The response headers of all three protocols, and those with the age of a response. */
const EXPOSED_HEADERS = [...cors.exposedHeaders, STALE_HEADER, "date"].join(", ").toLowerCase();

/** The CORS headers of a response on this path to a page of this origin. */
export type CorsHeaders = (path: string, origin: string | undefined) => Readonly<Record<string, string>>;

/** Sets the CORS headers of a response. Responds to preflight requests itself, and returns whether it did. */
export type Cors = (request: HttpRequest, response: HttpResponse, path: string) => boolean;

/**
 * Cross-origin sharing by an allow-list of origins as browsers send them: `https://shop.example`. Responses carry no
 * credentials, so the list protects no secret; it keeps other shops from using this server for their own pages. An
 * origin outside the list gets no header, and its browser withholds the response.
 */
export function createCorsHeaders(origins: readonly string[]): CorsHeaders {
  const allowed = new Set(origins);
  return (path, origin) => {
    if (allowed.size === 0 || !path.startsWith(SHARED_PATH)) {
      return NO_HEADERS;
    }
    return {
      // The response depends on the origin, so a shared cache must keep one for each.
      vary: "origin",
      ...(origin !== undefined &&
        allowed.has(origin) && {
          "access-control-allow-origin": origin,
          "access-control-expose-headers": EXPOSED_HEADERS,
        }),
    };
  };
}

export function createCors(corsHeaders: CorsHeaders): Cors {
  return (request, response, path) => {
    if (!path.startsWith(SHARED_PATH)) {
      return false;
    }
    const headers = corsHeaders(path, request.headers.origin);
    setHeaders(response, headers);
    if (request.method !== "OPTIONS" || request.headers["access-control-request-method"] === undefined) {
      return false;
    }
    if (headers["access-control-allow-origin"] === undefined) {
      respondWithText(
        response,
        403,
        `Pages of the origin ${quote(request.headers.origin ?? "")} have no access`,
      );
      return true;
    }
    response.statusCode = 204;
    setHeaders(response, PREFLIGHT_HEADERS);
    response.end();
    return true;
  };
}
