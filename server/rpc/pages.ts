import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { PageHandler } from "./front.ts";

const WEB = join(import.meta.dirname, "../../web");

const FILES: readonly { readonly path: string; readonly file: string; readonly type: string }[] = [
  { path: "/", file: "index.html", type: "text/html; charset=utf-8" },
  { path: "/page.css", file: "page.css", type: "text/css; charset=utf-8" },
  { path: "/page.js", file: "page.js", type: "text/javascript; charset=utf-8" },
];

/** Nothing from elsewhere, nothing inline, no frames. */
const CONTENT_SECURITY_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** Serves the shoppers' page from memory. */
export function createPages(): PageHandler {
  const bodies = new Map(
    FILES.map(({ path, file, type }) => [path, { body: readFileSync(join(WEB, file)), type }]),
  );
  return (request, response, path) => {
    const page = bodies.get(path);
    if (page === undefined || (request.method !== "GET" && request.method !== "HEAD")) {
      return false;
    }
    response.setHeader("content-type", page.type);
    response.setHeader("content-length", page.body.length);
    response.setHeader("cache-control", "no-cache");
    response.setHeader("content-security-policy", CONTENT_SECURITY_POLICY);
    response.setHeader("x-content-type-options", "nosniff");
    response.end(page.body);
    return true;
  };
}
