import type { DescMethod } from "@bufbuild/protobuf";
import type { UniversalServerResponse } from "@connectrpc/connect/protocol";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { Inventory } from "../../gen/inventory_pb.ts";
import { etagOf, evaluatePreconditions } from "../http/etag.ts";
import { STALE_HEADER } from "../http/headers.ts";
import type { HttpRequest, HttpResponse } from "../http/message.ts";

/** Services whose responses do not depend on the caller. */
const PUBLIC_SERVICES: ReadonlySet<string> = new Set([StockService.typeName, Inventory.typeName]);

/**
 * A shared cache may serve a response for one second, and for one more while it revalidates. One product then costs this
 * server about one read in two seconds, whatever the number of clients. Browsers revalidate each time, mostly with a 304.
 */
const FRESH = "public, max-age=0, s-maxage=1, stale-while-revalidate=1";
/** A response that is stale when it is sent must not be served for longer. */
const STALE = "public, max-age=0, s-maxage=1";
const NEVER = "no-store";

/** Whether a request is a cacheable read. HEAD counts only where the response to GET is public. */
export function isGet(method: DescMethod, httpMethod: string | undefined): boolean {
  return httpMethod === "GET" || (httpMethod === "HEAD" && isPublicRead(method));
}

/** Other methods that allow GET have responses for one caller. */
function isPublicRead(method: DescMethod): boolean {
  return PUBLIC_SERVICES.has(method.parent.typeName) && method.methodKind === "unary";
}

/**
 * Adds Cache-Control, ETag and Vary to the response to a GET, and replaces it by a 304 or 412 where a
 * precondition requires it. Errors are never cached.
 */
export async function withCacheHeaders(
  method: DescMethod,
  request: HttpRequest,
  response: HttpResponse,
  result: UniversalServerResponse,
): Promise<UniversalServerResponse> {
  const header = new Headers(result.header);
  if (result.status !== 200 || !isPublicRead(method)) {
    header.set("cache-control", NEVER);
    return { ...result, header };
  }
  const body = await collect(result.body);
  const etag = etagOf(body);
  header.set("etag", `"${etag}"`);
  header.set("cache-control", header.has(STALE_HEADER) ? STALE : FRESH);
  header.set("vary", [response.getHeader("vary") ?? [], "accept-encoding"].flat().join(", "));
  const precondition = evaluatePreconditions(request.headers, (tag) => tag === etag);
  if (precondition === 412) {
    return { status: 412, header: new Headers({ "cache-control": NEVER }) };
  }
  if (precondition === 304) {
    for (const name of ["content-type", "content-length", "content-encoding"]) {
      header.delete(name);
    }
    return { status: 304, header };
  }
  return { status: result.status, header, ...(request.method === "GET" && { body: once(body) }) };
}

async function collect(body: UniversalServerResponse["body"]): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body ?? []) {
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

async function* once(body: Uint8Array): AsyncGenerator<Uint8Array> {
  yield body;
}
