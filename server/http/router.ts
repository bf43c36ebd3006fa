import type { Health } from "../ops/health.ts";
import type { Cors } from "./cors.ts";
import { type ListenerRequest, type ListenerResponse, pathOf } from "./listener.ts";

/** Answers a request that is its own, and returns whether it was. `path` is without the query. */
export type RequestHandler = (request: ListenerRequest, response: ListenerResponse, path: string) => boolean;

interface RouterOptions {
  readonly health: Health;
  /** The RPC methods, in every protocol. */
  readonly rpc: RequestHandler;
  /** Answers RPC requests for methods that do not exist. */
  readonly unknownMethod: RequestHandler;
  readonly pages: RequestHandler;
  readonly cors: Cors;
  /** Called with the status of each response to a request that is not an RPC. */
  readonly onNonRpcResponse?: ((status: number) => void) | undefined;
}

/** Routes a request: RPC methods first, then liveness and readiness, pages, and 404. */
export function createRouter(
  options: RouterOptions,
): (request: ListenerRequest, response: ListenerResponse) => void {
  const { health, rpc, unknownMethod, pages, cors, onNonRpcResponse } = options;
  return (request, response) => {
    const path = pathOf(request.url);
    const isPreflight = cors(request, response, path);
    if (!isPreflight && rpc(request, response, path)) {
      return;
    }
    if (onNonRpcResponse !== undefined) {
      response.once("close", () => onNonRpcResponse(response.statusCode));
    }
    if (isPreflight || unknownMethod(request, response, path)) {
      return;
    }
    if (path === "/healthz") {
      respondWithText(response, 200, "ok");
    } else if (path === "/readyz") {
      void respondWithReadiness(health, response);
    } else if (!pages(request, response, path)) {
      respondWithText(response, 404, "There is nothing at this path");
    }
  };
}

async function respondWithReadiness(health: Health, response: ListenerResponse): Promise<void> {
  const report = await health.report();
  writeHead(response, report.ready ? 200 : 503, {
    "content-type": "application/json",
    "cache-control": "no-store",
  });
  response.end(`${JSON.stringify(report)}\n`);
}

/** Answers with a line of text that no cache may keep. */
export function respondWithText(response: ListenerResponse, status: number, text: string): void {
  writeHead(response, status, { "content-type": "text/plain; charset=utf-8", "cache-control": "no-store" });
  response.end(`${text}\n`);
}

/** Sets the head of a response. Node types the two responses' writeHead as a union that cannot be called. */
export function writeHead(response: ListenerResponse, status: number, headers: Record<string, string>): void {
  response.statusCode = status;
  for (const [name, value] of Object.entries(headers)) {
    response.setHeader(name, value);
  }
}
