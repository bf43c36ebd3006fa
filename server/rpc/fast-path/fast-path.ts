import type { IncomingMessage, ServerResponse } from "node:http";
import type { IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { Code } from "@connectrpc/connect";
import type { HttpRequest, HttpResponse } from "../../http/message.ts";
import type { ConnectHandler, StartedCall } from "../connect-handler.ts";

/** Handles some requests without Connect. Both methods return false for any other request, which goes to Connect. */
export interface FastPath {
  tryHandleStream(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    rawHeaders: readonly string[],
  ): boolean;
  /** HTTP/1.1. `path` is without the query. */
  tryHandleRequest(request: IncomingMessage, response: ServerResponse, path: string): boolean;
}

/** Passes a request on to Connect. Responds with 400 where Connect throws, as it does on a port above 65535. */
export function fallBackTo(
  connectHandler: ConnectHandler,
  request: HttpRequest,
  response: HttpResponse,
  path: string,
  started: StartedCall,
): void {
  try {
    connectHandler(request, response, path, started);
  } catch {
    started.call.end(Code.InvalidArgument);
    response.statusCode = 400;
    response.setHeader("content-type", "text/plain; charset=utf-8");
    response.end("Bad Request\n");
  }
}
