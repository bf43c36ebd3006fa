import type { IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";

/** A request and a response of either HTTP version. */
export type HttpRequest = IncomingMessage | Http2ServerRequest;
export type HttpResponse = ServerResponse | Http2ServerResponse;

/** Handles a request if it is one of its own, and returns whether it did. `path` is without the query. */
export type RequestHandler = (request: HttpRequest, response: HttpResponse, path: string) => boolean;

/** The path of a request target, without its query. */
export function pathOf(target = ""): string {
  const query = target.indexOf("?");
  return query < 0 ? target : target.slice(0, query);
}

/** Responds with one line of text that no cache may store. */
export function respondWithText(
  response: HttpResponse,
  status: number,
  text: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  setHead(response, status, {
    "content-type": "text/plain; charset=utf-8",
    "cache-control": "no-store",
    ...headers,
  });
  response.end(`${text}\n`);
}

/** Sets status and headers. The `writeHead` methods of Node's two response types form a union that cannot be called. */
export function setHead(
  response: HttpResponse,
  status: number,
  headers: Readonly<Record<string, string>>,
): void {
  response.statusCode = status;
  setHeaders(response, headers);
}

export function setHeaders(response: HttpResponse, headers: Readonly<Record<string, string>>): void {
  for (const [name, value] of Object.entries(headers)) {
    response.setHeader(name, value);
  }
}
