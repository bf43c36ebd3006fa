import { join } from "node:path";
import { chooseLocale } from "../../web/view/formats.ts";
import { parsePageQuery } from "../../web/view/list-query.ts";
import { PAGE_SETTINGS_DEFAULT, type PageSettings } from "../../web/view/settings.ts";
import type { HttpRequest, HttpResponse, RequestHandler } from "../http/message.ts";
import { handleOptionsOrDisallowed } from "../http/refusal.ts";
import { type Body, compressNow, linksOf, readAssets, sendBody } from "./assets.ts";
import { type CatalogView, notFoundHtml, pageHtml } from "./html.ts";

export type { CatalogQuery, CatalogView } from "./html.ts";
export type { PageSettings };

interface PagesOptions {
  readonly catalog: CatalogView;
  /** Overrides of `PAGE_SETTINGS_DEFAULT`. */
  readonly settings?: Partial<PageSettings>;
  /** The folder of the page's build. */
  readonly folder?: string;
}

const FOLDER_DEFAULT = join(import.meta.dirname, "../../dist/web");
/** The placeholder in the element's script that is replaced by its settings. */
const SETTINGS_PLACEHOLDER = "__STOCK_COUNT_SETTINGS__";
const HTML_TYPE = "text/html; charset=utf-8";

/** Same origin only, nothing inline, no frames. Only Lit may turn text into HTML (Trusted Types). */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types lit-html",
].join("; ");

const SECURITY_HEADERS = {
  "content-security-policy": CONTENT_SECURITY_POLICY,
  "x-content-type-options": "nosniff",
  "referrer-policy": "same-origin",
  "cross-origin-opener-policy": "same-origin",
};

/** File names with a content hash never change their content. */
const IMMUTABLE = {
  "cache-control": "public, max-age=31536000, immutable",
  "x-content-type-options": "nosniff",
};
const REVALIDATED = { "cache-control": "no-cache" };
/** The element's script has no hash in its name, because storefronts link to it. Caches may serve it for some minutes. */
const EMBED = {
  "cache-control": "public, max-age=300, stale-while-revalidate=86400",
  "x-content-type-options": "nosniff",
  "access-control-allow-origin": "*",
  "cross-origin-resource-policy": "cross-origin",
};

/** Serves the shoppers' page, its assets and the element from memory. */
export function createPages(options: PagesOptions): RequestHandler {
  const { catalog, folder = FOLDER_DEFAULT } = options;
  const settings = { ...PAGE_SETTINGS_DEFAULT, ...options.settings };
  const assets = readAssets(folder);
  // The page's script expects that of the demo to have run.
  const entries = settings.demo?.canReserve ? ["page/demo.ts", "page/main.ts"] : ["page/main.ts"];
  const links = entries.map((entry) => linksOf(folder, entry));
  const page = {
    scripts: links.flatMap(({ scripts }) => scripts),
    styles: links.flatMap(({ styles }) => styles).reverse(),
  };
  const embed = withSettings(assets.get("/embed.js"), settings);

  const notFound = compressNow(HTML_TYPE, notFoundHtml(settings, page), "best");
  /** A page for people; programs get the server's line of text. */
  const sendNotFound = (request: HttpRequest, response: HttpResponse): boolean => {
    const isRead = request.method === "GET" || request.method === "HEAD";
    if (!isRead || !String(request.headers.accept ?? "").includes("text/html")) {
      return false;
    }
    sendBody(request, response, notFound, { ...SECURITY_HEADERS, "cache-control": "no-store" }, 404);
    return true;
  };

  return (request, response, path) => {
    const asset = path === "/embed.js" ? embed : assets.get(path);
    if (path !== "/" && asset === undefined) {
      return sendNotFound(request, response);
    }
    if (handleOptionsOrDisallowed(request, response)) {
      return true;
    }
    if (asset === undefined) {
      const { searchParams } = new URL(request.url ?? "/", "http://page");
      const send = (): void => {
        const locale = localeOf(request);
        const html = pageHtml(
          catalog,
          parsePageQuery(searchParams),
          { ...settings, locale },
          page,
          Date.now(),
        );
        sendBody(request, response, compressNow(HTML_TYPE, html), {
          ...SECURITY_HEADERS,
          ...REVALIDATED,
          vary: "accept-encoding, accept-language",
        });
      };
      const caughtUp = catalog.caughtUp();
      if (caughtUp === undefined) {
        send();
      } else {
        void caughtUp.then(send);
      }
      return true;
    }
    sendBody(request, response, asset, headersFor(path, asset));
    return true;
  };
}

/** The visitor's language, for numbers and times. `Accept-Language` has the preferred one first in every browser. */
function localeOf(request: HttpRequest): string {
  const accepted = String(request.headers["accept-language"] ?? "");
  return chooseLocale(accepted.split(",").map((item) => item.split(";", 1)[0]?.trim() ?? ""));
}

function headersFor(path: string, asset: Body): Record<string, string> {
  if (path === "/embed.js") {
    return EMBED;
  }
  if (path.startsWith("/assets/")) {
    return IMMUTABLE;
  }
  return asset.type === HTML_TYPE
    ? { ...SECURITY_HEADERS, ...REVALIDATED }
    : { ...REVALIDATED, "x-content-type-options": "nosniff" };
}

/** The element's script with the merchant's settings inserted. */
function withSettings(script: Body | undefined, settings: PageSettings): Body | undefined {
  const { lowStockMax, exactCountMax, heartbeatMs } = settings;
  const inserted = JSON.stringify({ lowStockMax, exactCountMax, heartbeatMs });
  const text = script?.identity.toString().replace(SETTINGS_PLACEHOLDER, inserted);
  return script && text !== undefined ? compressNow(script.type, text, "best") : undefined;
}
