import type { Health } from "../ops/health.ts";
import type { ConnectHandler } from "../rpc/connect-handler.ts";
import type { Cors } from "./cors.ts";
import { encodeGrpcMessage } from "../rpc/grpc-message.ts";
import type { Lane } from "../rpc/fast-path/fast-path.ts";
import { type ListenerRequest, type ListenerResponse, pathOf } from "./listener.ts";

/** Answers a request for a file or a page if there is one, and says whether there was. */
export type PageHandler = (request: ListenerRequest, response: ListenerResponse, path: string) => boolean;

interface FrontOptions {
  readonly health: Health;
  readonly methods: ConnectHandler;
  readonly pages: PageHandler;
  readonly cors: Cors;
  /** The short ways of HTTP/1.1. None: everything goes through Connect. */
  readonly lanes: readonly Lane[];
  /** Told the status of each answer to a request that is no call. */
  readonly onNoCall?: ((status: number) => void) | undefined;
}

/** What stands behind the port: methods first, then liveness and readiness, pages, and 404. */
export function createFront(
  options: FrontOptions,
): (request: ListenerRequest, response: ListenerResponse) => void {
  const { health, methods, pages, cors, lanes, onNoCall } = options;
  const count = (response: ListenerResponse): void => {
    if (onNoCall !== undefined) {
      response.once("close", () => onNoCall(response.statusCode));
    }
  };
  return (request, response) => {
    const path = pathOf(request.url);
    const contentType = request.headers["content-type"] ?? "";
    const isGrpc = /^application\/grpc(?!-web)/.test(contentType);
    if (isGrpc && request.httpVersionMajor < 2) {
      count(response);
      answerText(response, 505, "gRPC needs HTTP/2; over HTTP/1.1 use gRPC-Web or Connect");
      return;
    }
    if (cors(request, response, path)) {
      count(response);
      return;
    }
    if (takeLane(lanes, request, response, path) || methods(request, response, path)) {
      return;
    }
    count(response);
    if (isGrpc) {
      refuseUnknownMethod(response, path);
    } else if (path === "/healthz") {
      answerText(response, 200, "ok");
    } else if (path === "/readyz") {
      void answerReadiness(health, response);
    } else if (!pages(request, response, path)) {
      answerText(response, 404, "There is nothing at this path");
    }
  };
}

/** HTTP/2 streams were offered to the lanes before they became requests. */
function takeLane(
  lanes: readonly Lane[],
  request: ListenerRequest,
  response: ListenerResponse,
  path: string,
): boolean {
  if ("stream" in request || "stream" in response) {
    return false;
  }
  return lanes.some((lane) => lane.takeRequest(request, response, path));
}

/** A gRPC client understands a status in the trailers, and no 404. */
function refuseUnknownMethod(response: ListenerResponse, path: string): void {
  writeHead(response, 200, {
    "content-type": "application/grpc",
    "grpc-status": "12",
    "grpc-message": encodeGrpcMessage(`There is no method ${path}`),
  });
  response.end();
}

async function answerReadiness(health: Health, response: ListenerResponse): Promise<void> {
  const report = await health.report();
  writeHead(response, report.ready ? 200 : 503, {
    "content-type": "application/json",
    "cache-control": "no-store",
  });
  response.end(`${JSON.stringify(report)}\n`);
}

function answerText(response: ListenerResponse, status: number, text: string): void {
  writeHead(response, status, { "content-type": "text/plain; charset=utf-8", "cache-control": "no-store" });
  response.end(`${text}\n`);
}

/** Node types the two responses' writeHead as a union of overloads that cannot be called. */
function writeHead(response: ListenerResponse, status: number, headers: Record<string, string>): void {
  response.statusCode = status;
  for (const [name, value] of Object.entries(headers)) {
    response.setHeader(name, value);
  }
}
