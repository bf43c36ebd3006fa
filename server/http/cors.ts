import { cors } from "@connectrpc/connect";
import { STALE_HEADER } from "./headers.ts";
import type { ListenerRequest, ListenerResponse } from "./listener.ts";

/** What storefronts may call from their own pages: shoppers' reads, and nothing that changes stock. */
const SHARED_PATH = "/inventory.v1.StockService/";

/** Seconds that a browser may remember a preflight: two hours, where Chrome caps it. */
const PREFLIGHT_SECONDS = 7_200;

const PREFLIGHT_HEADERS = {
  "access-control-allow-methods": cors.allowedMethods.join(", "),
  "access-control-allow-headers": cors.allowedHeaders.join(", ").toLowerCase(),
  "access-control-max-age": String(PREFLIGHT_SECONDS),
};

/** What all three protocols say in headers; whether an answer may be behind, and what time it was when it was given. */
const EXPOSED_HEADERS = [...cors.exposedHeaders, STALE_HEADER, "date"].join(", ").toLowerCase();

/** What goes with an answer to a page of this origin, by the path. */
export type CorsHeaders = (path: string, origin: string | undefined) => Readonly<Record<string, string>>;

/** Sets what lets a foreign page read the answer, and answers preflights itself: true where it did. */
export type Cors = (request: ListenerRequest, response: ListenerResponse, path: string) => boolean;

/**
 * Cross-origin sharing by an allow-list: `https://shop.example`, as browsers write origins. Without cookies,
 * so that an origin gets nothing that anybody could not read; the list keeps foreign shops from living off
 * this server. An origin that is not in it gets no header, and its browser refuses the answer.
 */
export function createCorsHeaders(origins: readonly string[]): CorsHeaders {
  const allowed = new Set(origins);
  return (path, origin) => {
    if (allowed.size === 0 || !path.startsWith(SHARED_PATH)) {
      return {};
    }
    return {
      // What a cache keeps of an answer depends on who asked.
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
    const isAllowed = headers["access-control-allow-origin"] !== undefined;
    response.statusCode = isAllowed ? 204 : 403;
    if (isAllowed) {
      setHeaders(response, PREFLIGHT_HEADERS);
    }
    response.end();
    return true;
  };
}

function setHeaders(response: ListenerResponse, headers: Readonly<Record<string, string>>): void {
  for (const [name, value] of Object.entries(headers)) {
    response.setHeader(name, value);
  }
}
