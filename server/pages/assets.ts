import { existsSync, readdirSync, readFileSync } from "node:fs";
import { extname, join } from "node:path";
import { brotliCompressSync, gzipSync, constants as zlib } from "node:zlib";
import { z } from "zod";
import { etagOf, evaluatePreconditions } from "../http/etag.ts";
import { type HttpRequest, type HttpResponse, respondWithText } from "../http/message.ts";

type Encoding = "br" | "gzip" | "identity";

/** A response body in each content coding that it is served in. */
export interface Body {
  readonly type: string;
  readonly etag: string;
  readonly identity: Buffer;
  readonly br: Buffer | undefined;
  readonly gzip: Buffer | undefined;
}

const TYPES: Readonly<Record<string, string>> = {
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".html": "text/html; charset=utf-8",
};

/** The files of the page's build, by path. Empty if there is no build. */
export function readAssets(folder: string): Map<string, Body> {
  const assets = new Map<string, Body>();
  if (!existsSync(folder)) {
    return assets;
  }
  for (const file of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
    const type = TYPES[extname(file)];
    if (type !== undefined) {
      const path = join(folder, file);
      const identity = readFileSync(path);
      assets.set(`/${file.replaceAll("\\", "/")}`, {
        type,
        etag: etagOf(identity),
        identity,
        br: readIfPresent(`${path}.br`),
        gzip: readIfPresent(`${path}.gz`),
      });
    }
  }
  return assets;
}

/** Compresses a body that is not part of the build: `quick` for a body of one request, `best` for one that is kept. */
export function compressNow(type: string, text: string, effort: "quick" | "best" = "quick"): Body {
  const isBest = effort === "best";
  const identity = Buffer.from(text);
  return {
    type,
    etag: etagOf(identity),
    identity,
    br: brotliCompressSync(identity, { params: { [zlib.BROTLI_PARAM_QUALITY]: isBest ? 11 : 4 } }),
    gzip: gzipSync(identity, { level: isBest ? 9 : 5 }),
  };
}

/** Sends a body in the smallest content coding that the client accepts, or, with status 200, 304 if the client has it. */
export function sendBody(
  request: HttpRequest,
  response: HttpResponse,
  body: Body,
  headers: Readonly<Record<string, string>>,
  status = 200,
): void {
  const encoding = chooseEncoding(request.headers["accept-encoding"], body);
  const etag = encoding === "identity" ? `"${body.etag}"` : `"${body.etag}-${encoding}"`;
  const sent = { "content-type": body.type, etag, vary: "accept-encoding", ...headers };
  for (const [name, value] of Object.entries(sent)) {
    response.setHeader(name, value);
  }
  response.statusCode = status;
  const precondition =
    status === 200 ? evaluatePreconditions(request.headers, (tag) => isTagOf(body, tag)) : undefined;
  if (precondition === 412) {
    respondWithText(response, 412, "If-Match does not have the ETag of the current page");
    return;
  }
  if (precondition === 304) {
    response.statusCode = 304;
    response.removeHeader("content-type");
    response.end();
    return;
  }
  const bytes = body[encoding] ?? body.identity;
  if (encoding !== "identity") {
    response.setHeader("content-encoding", encoding);
  }
  response.setHeader("content-length", bytes.length);
  if (request.method === "HEAD") {
    response.end();
  } else {
    response.end(bytes);
  }
}

/** The smallest coding that the client accepts. A quality value of 0 means "not acceptable". */
function chooseEncoding(accepted: string | string[] | undefined, body: Pick<Body, "br" | "gzip">): Encoding {
  const qualities = new Map<string, number>();
  for (const item of String(accepted ?? "")
    .toLowerCase()
    .split(",")) {
    const [name = "", ...parameters] = item.split(";").map((part) => part.trim());
    const quality = parameters.find((parameter) => parameter.startsWith("q="))?.slice(2);
    qualities.set(name, quality === undefined ? 1 : Number(quality));
  }
  const accepts = (name: string): boolean => (qualities.get(name) ?? qualities.get("*") ?? 0) > 0;
  if (body.br !== undefined && accepts("br")) {
    return "br";
  }
  return body.gzip !== undefined && accepts("gzip") ? "gzip" : "identity";
}

/** Whether a tag is the body's, in any content coding. */
function isTagOf({ etag }: Body, tag: string): boolean {
  return tag.replace(/-(br|gzip)$/, "") === etag;
}

function readIfPresent(path: string): Buffer | undefined {
  return existsSync(path) ? readFileSync(path) : undefined;
}

const Manifest = z.record(z.string(), z.object({ file: z.string(), css: z.array(z.string()).optional() }));

/** The paths of the scripts and the styles of an entry of the build. Empty if it was not built. */
export function linksOf(folder: string, entry: string): { scripts: string[]; styles: string[] } {
  const path = join(folder, ".vite/manifest.json");
  const built = existsSync(path) ? Manifest.parse(JSON.parse(readFileSync(path, "utf8")))[entry] : undefined;
  return {
    scripts: built === undefined ? [] : [`/${built.file}`],
    styles: (built?.css ?? []).map((file) => `/${file}`),
  };
}
