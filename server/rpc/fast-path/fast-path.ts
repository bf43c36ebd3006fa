import type { IncomingMessage, ServerResponse } from "node:http";
import type { IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { Code } from "@connectrpc/connect";
import type { HttpRequest, HttpResponse } from "../../http/message.ts";
import type { ConnectHandler, StartedCall } from "../connect-handler.ts";

/** A short way for some calls. Both methods say whether it has taken the request; what it leaves goes to Connect. */
export interface FastPath {
  tryHandleStream(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    rawHeaders: readonly string[],
  ): boolean;
  /** HTTP/1.1. `path` is without the query. */
  tryHandleRequest(request: IncomingMessage, response: ServerResponse, path: string): boolean;
}

/** Hands a request over to the long way, which throws on what it cannot parse, such as a port above 65535. */
export function fallBackTo(
  connectHandler: ConnectHandler,
  request: HttpRequest,
  response: HttpResponse,
  path: string,
  begun: StartedCall,
): void {
  try {
    connectHandler(request, response, path, begun);
  } catch {
    begun.call.end(Code.InvalidArgument);
    response.statusCode = 400;
    response.setHeader("content-type", "text/plain; charset=utf-8");
    response.end("Bad Request\n");
  }
}
