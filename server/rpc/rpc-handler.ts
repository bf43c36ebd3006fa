import { type HttpRequest, type RequestHandler, respondWithText } from "../http/message.ts";
import type { ConnectHandler } from "./connect-handler.ts";
import type { FastPath } from "./fast-path/fast-path.ts";

const GRPC_CONTENT_TYPE = /^application\/grpc(?!-web)/;

interface RpcHandlerOptions {
  /** Tried in order; what none of them handles goes to Connect. HTTP/2 streams were offered to them before. */
  readonly fastPaths: readonly FastPath[];
  readonly connectHandler: ConnectHandler;
  /** Called with the status of each response to a request that is not an RPC. */
  readonly onNonRpcResponse?: ((status: number) => void) | undefined;
}

/** Runs RPC requests of every protocol: on a fast path where one handles it, otherwise through Connect. */
export function createRpcHandler(options: RpcHandlerOptions): RequestHandler {
  const { fastPaths, connectHandler, onNonRpcResponse } = options;
  return (request, response, path) => {
    if (isGrpc(request) && request.httpVersionMajor < 2) {
      response.once("close", () => onNonRpcResponse?.(response.statusCode));
      respondWithText(response, 505, "gRPC needs HTTP/2; over HTTP/1.1 use gRPC-Web or Connect");
      return true;
    }
    const isHttp1 = !("stream" in request || "stream" in response);
    return (
      (isHttp1 && fastPaths.some((fastPath) => fastPath.tryHandleRequest(request, response, path))) ||
      connectHandler(request, response, path)
    );
  };
}

function isGrpc(request: HttpRequest): boolean {
  return GRPC_CONTENT_TYPE.test(request.headers["content-type"] ?? "");
}
