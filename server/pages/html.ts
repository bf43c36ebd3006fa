import { type PageQuery, SORTS } from "../../web/view/list-query.ts";
import { pageView } from "../../web/view/page-view.ts";
import { type NamedCollection, type PageStart, toListed } from "../../web/view/product.ts";
import { collectionName } from "../../web/view/product-card.ts";
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
  readonly collections: readonly Collection[];
  /** Whether the products are known. False until the first load after a start. */
  readonly isLoaded: boolean;
  readonly isStale: boolean;
  /** When the catalog was last known to be current, ms since 1970; 0 if never. */
  readonly currentTimeMs: number;
  /** Resolves when it has what this server has acknowledged; `undefined` if it does already. */
  caughtUp(): Promise<void> | undefined;
}

/** The paths of the built script and styles. */
export interface PageLinks {
  readonly script: string | undefined;
  readonly styles: readonly string[];
}

/** The page with the list that its URL requests, readable without a script. The script continues from this state. */
export function pageHtml(
  catalog: CatalogView,
  query: PageQuery,
  settings: PageSettings,
  links: PageLinks,
  nowMs: number,
): string {
  const start = pageStart(catalog, query, nowMs);
  const view = pageView(textMarkup, {
    settings,
    query,
    products: start.products.map(toListed),
    total: start.total,
    collections: start.collections,
    status: {
      connection: "snapshot",
      isStale: start.isStale,
      asOf: start.serverTimeMs === 0 ? "" : `${new Date(start.serverTimeMs).toISOString().slice(11, 19)} UTC`,
    },
    nowMs,
    loading: start.isLoaded ? "idle" : "failed",
    movedCount: 0,
  });
  const styles = links.styles.map((path) => `<link rel="stylesheet" href="${path}">`).join("");
  const script = links.script ? `<script type="module" src="${links.script}"></script>` : "";
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="theme-color" content="#f7f5f0" media="(prefers-color-scheme: light)">
<meta name="theme-color" content="#171916" media="(prefers-color-scheme: dark)">
<meta name="description" content="All products of the shop, with the number of units left.">
<title>Live stock</title>
<link rel="icon" href="/favicon.svg" type="image/svg+xml">
${styles}${script}
</head>
<body>
<div class="page" id="page" data-settings="${attribute(settings)}" data-start="${attribute(start)}">${htmlOf(view)}</div>
<div class="unseen" id="announcements" role="status" aria-live="polite"></div>
</body>
</html>
`;
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
    collections: collectionsOf(catalog, list.stocks, collectionId),
    serverTimeMs: catalog.isStale ? catalog.currentTimeMs : nowMs,
    isLoaded: catalog.isLoaded,
    isStale: catalog.isStale,
  };
}

/** The collections that sellers have named, and the unnamed ones of the listed products. */
function collectionsOf(catalog: CatalogView, stocks: readonly Stock[], selected: string): NamedCollection[] {
  const named = catalog.collections.map(({ collectionId, name }) => ({
    collectionId,
    name: name || collectionId,
  }));
  const known = new Set(["", ...named.map(({ collectionId }) => collectionId)]);
  const ids = new Set([...stocks.map(({ details }) => details?.collectionId ?? ""), selected]);
  const others = [...ids].filter((collectionId) => !known.has(collectionId)).sort();
  return [
    ...named,
    ...others.map((collectionId) => ({ collectionId, name: collectionName(collectionId, []) })),
  ];
}

function attribute(value: unknown): string {
  return escapeHtml(JSON.stringify(value));
}
