import type { ListenerRequest, ListenerResponse } from "./listener.ts";

/** What storefronts may call from their own pages: shoppers' reads, and nothing that changes stock. */
const SHARED_PATH = "/inventory.v1.StockService/";

/** Hours that a browser may remember a preflight; Chrome caps it at two. */
const PREFLIGHT_SECONDS = 7_200;

const PREFLIGHT_HEADERS = {
  "access-control-allow-methods": "GET, POST",
  "access-control-allow-headers":
    "content-type, x-grpc-web, x-user-agent, grpc-timeout, connect-protocol-version, connect-timeout-ms",
  "access-control-max-age": String(PREFLIGHT_SECONDS),
};

const EXPOSED_HEADERS = "grpc-status, grpc-message, grpc-status-details-bin, stock-stale";

/** Sets what lets a foreign page read the answer, and answers preflights itself: true where it did. */
export type Cors = (request: ListenerRequest, response: ListenerResponse, path: string) => boolean;

/**
 * Cross-origin sharing by an allow-list: `https://shop.example`, as browsers write origins. Without cookies,
 * so that an origin gets nothing that anybody could not read; the list keeps foreign shops from living off
 * this server. An origin that is not in it gets no header, and its browser refuses the answer.
 */
export function createCors(origins: readonly string[]): Cors {
  const allowed = new Set(origins);
  return (request, response, path) => {
    if (!path.startsWith(SHARED_PATH)) {
      return false;
    }
    const { origin } = request.headers;
    const isAllowed = origin !== undefined && allowed.has(origin);
    if (allowed.size > 0) {
      // What a cache keeps of an answer depends on who asked.
      response.setHeader("vary", "origin");
    }
    if (isAllowed) {
      response.setHeader("access-control-allow-origin", origin);
      response.setHeader("access-control-expose-headers", EXPOSED_HEADERS);
    }
    if (request.method !== "OPTIONS" || request.headers["access-control-request-method"] === undefined) {
      return false;
    }
    response.statusCode = isAllowed ? 204 : 403;
    if (isAllowed) {
      for (const [name, value] of Object.entries(PREFLIGHT_HEADERS)) {
        response.setHeader(name, value);
      }
    }
    response.end();
    return true;
  };
}
