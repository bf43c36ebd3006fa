import { ageText, formatsOf } from "../../web/view/formats.ts";
import { holdView } from "../../web/view/hold.ts";
import { type PageQuery, SORTS } from "../../web/view/list-query.ts";
import { notFoundView } from "../../web/view/not-found.ts";
import { pageView } from "../../web/view/page-view.ts";
import { type NamedCollection, type PageStart, toListed } from "../../web/view/product.ts";
import type { PageSettings } from "../../web/view/settings.ts";
import type { Collection } from "../inventory/collection.ts";
import type { Stock } from "../inventory/ledger.ts";
import { escapeHtml, htmlOf, textMarkup } from "./markup.ts";

/** The list that the page shows. */
export interface CatalogQuery {
  readonly words: string;
  readonly inStockOnly: boolean;
  readonly collectionId: string;
  readonly minPrice: number | undefined;
  readonly maxPrice: number | undefined;
  readonly order: "name" | "price" | "available" | "update_time";
  readonly descending: boolean;
  readonly limit: number;
  readonly after: undefined;
}

/** The catalog as the page reads it. */
export interface CatalogView {
  list(query: CatalogQuery): { readonly stocks: readonly Stock[]; readonly total: number };
  /** Those that sellers have named. */
  readonly collections: readonly Collection[];
  /** The IDs of all collections that have products, named or not, in natural order. */
  readonly collectionIds: readonly string[];
  /** Whether the products are known. False until the first load after a start. */
  readonly isLoaded: boolean;
  readonly isStale: boolean;
  /** When the catalog was last known to be current, ms since 1970; 0 if never. */
  readonly currentTimeMs: number;
  /** Resolves when it has what this server has acknowledged; `undefined` if it does already. */
  caughtUp(): Promise<void> | undefined;
}

/** The paths of the built scripts and styles, in the order in which they are loaded. */
export interface PageLinks {
  readonly scripts: readonly string[];
  readonly styles: readonly string[];
}

/** A select with more options is of no use. */
const UNNAMED_COLLECTIONS_MAX = 500;

/** The page with the list that its URL requests, readable without a script. The script continues from this state. */
export function pageHtml(
  catalog: CatalogView,
  query: PageQuery,
  settings: PageSettings,
  links: PageLinks,
  nowMs: number,
): string {
  const start = pageStart(catalog, query, nowMs);
  const { serverTimeMs } = start;
  // The time zone of the visitor is unknown without the script.
  const formats = formatsOf(settings.locale, settings.currency, "UTC");
  const view = pageView(textMarkup, {
    settings,
    query,
    products: start.products.map(toListed),
    total: start.total,
    collections: start.collections,
    status: {
      connection: "snapshot",
      isStale: start.isStale,
      asOf: serverTimeMs === 0 ? "" : formats.time(serverTimeMs, nowMs),
      age: serverTimeMs === 0 ? "" : ageText(serverTimeMs, nowMs),
    },
    printedTime: serverTimeMs === 0 ? "" : formats.fullTime(serverTimeMs),
    holdView: settings.demo?.canReserve
      ? (markup, model) => holdView(markup, model, undefined, undefined)
      : undefined,
    nowMs,
    loading: start.isLoaded ? "idle" : "failed",
    movedCount: 0,
  });
  return document(
    settings,
    links,
    `<div class="page" id="page" data-settings="${attribute(settings)}" data-start="${attribute(start)}">${htmlOf(view)}</div>
<div class="unseen" id="announcements" role="status" aria-live="polite"></div>`,
  );
}

/** The page at a path that does not exist. */
export function notFoundHtml(settings: PageSettings, { styles }: PageLinks): string {
  return document(
    settings,
    { styles, scripts: [] },
    `<div class="page">${htmlOf(notFoundView(textMarkup, settings))}</div>`,
  );
}

/** An HTML document in the style of the page. `body` is HTML. */
function document(settings: PageSettings, links: PageLinks, body: string): string {
  const styles = links.styles.map((path) => `<link rel="stylesheet" href="${path}">`).join("");
  const scripts = links.scripts.map((path) => `<script type="module" src="${path}"></script>`).join("");
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="theme-color" content="#f7f5f0" media="(prefers-color-scheme: light)">
<meta name="theme-color" content="#171916" media="(prefers-color-scheme: dark)">
<meta name="description" content="All products of the shop, with the number of units left.">
<title>${titleOf(settings)}</title>
<link rel="icon" href="/favicon.svg" type="image/svg+xml">
${styles}${scripts}
</head>
<body>
${body}
</body>
</html>
`;
}

/** The title of the page, as HTML. */
function titleOf({ shopName }: PageSettings): string {
  return shopName === undefined ? "Live stock" : `${escapeHtml(shopName)}: live stock`;
}

function pageStart(catalog: CatalogView, query: PageQuery, nowMs: number): PageStart {
  const { words, inStockOnly, collectionId, minPrice, maxPrice, sort, shown } = query;
  const { order, descending } = SORTS[sort];
  const list = catalog.list({
    words,
    inStockOnly,
    collectionId,
    minPrice,
    maxPrice,
    order,
    descending,
    limit: shown,
    after: undefined,
  });
  return {
    products: list.stocks.map(({ productId, available, version, updateTimeMs, details }) => ({
      productId,
      available,
      version,
      updateTimeMs,
      details,
    })),
    total: list.total,
    collections: collectionsOf(catalog, collectionId),
    serverTimeMs: catalog.isStale ? catalog.currentTimeMs : nowMs,
    isLoaded: catalog.isLoaded,
    isStale: catalog.isStale,
  };
}

/** The collections that sellers have named, and then those of products that have no name, by ID. */
function collectionsOf(catalog: CatalogView, selected: string): NamedCollection[] {
  const named = catalog.collections.map(({ collectionId, name }) => ({
    collectionId,
    name: name || collectionId,
  }));
  const known = new Set(["", ...named.map(({ collectionId }) => collectionId)]);
  const isUnnamed = (collectionId: string): boolean => !known.has(collectionId);
  const unnamed = catalog.collectionIds.filter(isUnnamed).slice(0, UNNAMED_COLLECTIONS_MAX);
  if (isUnnamed(selected) && !unnamed.includes(selected)) {
    unnamed.push(selected);
  }
  return [...named, ...unnamed.map((collectionId) => ({ collectionId, name: collectionId }))];
}

function attribute(value: unknown): string {
  return escapeHtml(JSON.stringify(value));
}
