import { type Health, type Purpose, READINESS_PATHS } from "../ops/health.ts";
import type { Cors } from "./cors.ts";
import {
  type HttpRequest,
  type HttpResponse,
  pathOf,
  type RequestHandler,
  respondWithText,
  setHead,
} from "./message.ts";
import { handleOptionsOrDisallowed } from "./refusal.ts";

const SERVER_METHODS = ["GET", "HEAD", "POST", "OPTIONS"];

interface RouterOptions {
  readonly health: Health;
  /** The RPC methods, in every protocol. */
  readonly rpc: RequestHandler;
  /** Responds to RPC requests for methods that do not exist. */
  readonly unknownMethod: RequestHandler;
  readonly pages: RequestHandler;
  /** What visitors of the demo may change. Absent unless that is switched on. */
  readonly demo: RequestHandler | undefined;
  readonly cors: Cors;
  /** Called with the status of each response to a request that is not an RPC. */
  readonly onNonRpcResponse?: ((status: number) => void) | undefined;
}

/** Routes a request: RPC methods first, then the demo, liveness and readiness, pages, and 404. */
export function createRouter(options: RouterOptions): (request: HttpRequest, response: HttpResponse) => void {
  const { health, rpc, unknownMethod, pages, demo, cors, onNonRpcResponse } = options;
  return (request, response) => {
    const path = pathOf(request.url);
    const isPreflight = cors(request, response, path);
    if (!isPreflight && rpc(request, response, path)) {
      return;
    }
    if (onNonRpcResponse !== undefined) {
      response.once("close", () => onNonRpcResponse(response.statusCode));
    }
    if (isPreflight || demo?.(request, response, path) || unknownMethod(request, response, path)) {
      return;
    }
    if (path === "*") {
      // OPTIONS for the server as a whole (RFC 9110, section 9.3.7).
      handleOptionsOrDisallowed(request, response, SERVER_METHODS);
    } else if (path === "/healthz") {
      if (!handleOptionsOrDisallowed(request, response)) respondWithText(response, 200, "ok");
    } else if (READINESS_PATHS.has(path)) {
      if (!handleOptionsOrDisallowed(request, response)) {
        void respondWithReadiness(health, READINESS_PATHS.get(path), response);
      }
    } else if (!pages(request, response, path)) {
      respondWithText(response, 404, "Not found");
    }
  };
}

async function respondWithReadiness(
  health: Health,
  purpose: Purpose | undefined,
  response: HttpResponse,
): Promise<void> {
  const report = await health.report(purpose);
  setHead(response, report.ready ? 200 : 503, {
    "content-type": "application/json",
    "cache-control": "no-store",
  });
  response.end(`${JSON.stringify(report)}\n`);
}
