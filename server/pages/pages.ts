import { join } from "node:path";
import { parsePageQuery } from "../../web/view/list-query.ts";
import { PAGE_SETTINGS_DEFAULT, type PageSettings } from "../../web/view/settings.ts";
import type { RequestHandler } from "../http/message.ts";
import { handleOptionsOrDisallowed } from "../http/refusal.ts";
import { type Body, compressNow, linksOf, readAssets, sendBody } from "./assets.ts";
import { type CatalogView, pageHtml } from "./html.ts";

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
  const page = linksOf(folder, "page/main.ts");
  const embed = withSettings(assets.get("/embed.js"), settings);

  return (request, response, path) => {
    const asset = path === "/embed.js" ? embed : assets.get(path);
    if (path !== "/" && asset === undefined) {
      return false;
    }
    if (handleOptionsOrDisallowed(request, response)) {
      return true;
    }
    if (asset === undefined) {
      const { searchParams } = new URL(request.url ?? "/", "http://page");
      const send = (): void => {
        const html = pageHtml(catalog, parsePageQuery(searchParams), settings, page, Date.now());
        sendBody(request, response, compressNow(HTML_TYPE, html), { ...SECURITY_HEADERS, ...REVALIDATED });
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
