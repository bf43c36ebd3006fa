import type { DescMethod } from "@bufbuild/protobuf";
import type { UniversalServerResponse } from "@connectrpc/connect/protocol";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { Inventory } from "../../gen/inventory_pb.ts";
import { etagOf, etagsIn } from "../http/etag.ts";
import { STALE_HEADER } from "../http/headers.ts";
import type { HttpRequest, HttpResponse } from "../http/message.ts";

/** Services whose reads are the same for everybody. */
const PUBLIC_SERVICES: ReadonlySet<string> = new Set([StockService.typeName, Inventory.typeName]);

/**
 * A shared cache answers for a second, and for one more while it asks again: a product costs this server one read in about two
 * seconds, however many ask. A browser asks each time, and is mostly told 304.
 */
const FRESH = "public, max-age=0, s-maxage=1, stale-while-revalidate=1";
/** What is old already when it is sent is not to grow older. */
const STALE = "public, max-age=0, s-maxage=1";
const NEVER = "no-store";

/** Whether a request is a read that a cache may repeat. HEAD is one only where GET's answers are public. */
export function isGet(method: DescMethod, httpMethod: string | undefined): boolean {
  return httpMethod === "GET" || (httpMethod === "HEAD" && isPublicRead(method));
}

/** Answers of other methods that GET may call are for their caller alone. */
function isPublicRead(method: DescMethod): boolean {
  return PUBLIC_SERVICES.has(method.parent.typeName) && method.methodKind === "unary";
}

/**
 * The answer to a GET, with what caches and browsers go by: how long it may be kept, on what it depends, its tag; 304 where the
 * client has it. Errors are never kept.
 */
export async function withCacheHeaders(
  method: DescMethod,
  request: HttpRequest,
  response: HttpResponse,
  answer: UniversalServerResponse,
): Promise<UniversalServerResponse> {
  const header = new Headers(answer.header);
  if (answer.status !== 200 || !isPublicRead(method)) {
    header.set("cache-control", NEVER);
    return { ...answer, header };
  }
  const body = await collect(answer.body);
  const etag = etagOf(body);
  header.set("etag", `"${etag}"`);
  header.set("cache-control", header.has(STALE_HEADER) ? STALE : FRESH);
  header.set("vary", [response.getHeader("vary") ?? [], "accept-encoding"].flat().join(", "));
  if (etagsIn(request.headers["if-none-match"]).includes(etag)) {
    for (const name of ["content-type", "content-length", "content-encoding"]) {
      header.delete(name);
    }
    return { status: 304, header };
  }
  return { status: answer.status, header, ...(request.method === "GET" && { body: once(body) }) };
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
