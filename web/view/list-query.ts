import { LIST_MAX, LIST_STEP } from "./settings.ts";

export const SORTS = {
  name: { label: "Name", order: "name", descending: false },
  price: { label: "Price, low to high", order: "price", descending: false },
  "-price": { label: "Price, high to low", order: "price", descending: true },
  available: { label: "Stock, low to high", order: "available", descending: false },
  "-available": { label: "Stock, high to low", order: "available", descending: true },
  "-changed": { label: "Recently updated", order: "update_time", descending: true },
} as const;
export type Sort = keyof typeof SORTS;

/** Maximum length of a search. Longer ones are truncated. */
const WORDS_MAX = 100;

/** What the page shows. It is part of the address, so that a link can be shared. */
export interface PageQuery {
  readonly words: string;
  readonly inStockOnly: boolean;
  readonly collectionId: string;
  readonly minPrice: number | undefined;
  readonly maxPrice: number | undefined;
  readonly sort: Sort;
  /** Number of products to show. */
  readonly shown: number;
}

/** Parses an address. Invalid parameters are ignored. */
export function parsePageQuery(parameters: URLSearchParams): PageQuery {
  const sort = parameters.get("sort") ?? "";
  const shown = Number(parameters.get("shown") ?? LIST_STEP);
  return {
    words: (parameters.get("q") ?? "").slice(0, WORDS_MAX),
    inStockOnly: parameters.get("stock") === "in",
    collectionId: parameters.get("collection") ?? "",
    minPrice: priceOf(parameters.get("min")),
    maxPrice: priceOf(parameters.get("max")),
    sort: Object.hasOwn(SORTS, sort) ? (sort as Sort) : "name",
    shown: Number.isInteger(shown) ? Math.min(Math.max(shown, LIST_STEP), LIST_MAX) : LIST_STEP,
  };
}

/** The shortest address of a query: `/` or `/?q=linen&stock=in`. */
export function pageAddress(query: PageQuery): string {
  const parameters = new URLSearchParams();
  if (query.words !== "") parameters.set("q", query.words);
  if (query.collectionId !== "") parameters.set("collection", query.collectionId);
  if (query.minPrice !== undefined) parameters.set("min", String(query.minPrice));
  if (query.maxPrice !== undefined) parameters.set("max", String(query.maxPrice));
  if (query.inStockOnly) parameters.set("stock", "in");
  if (query.sort !== "name") parameters.set("sort", query.sort);
  if (query.shown !== LIST_STEP) parameters.set("shown", String(query.shown));
  const text = parameters.toString();
  return text === "" ? "/" : `/?${text}`;
}

/** Number of filters that are set. The search words are not a filter. */
export function filterCount({ inStockOnly, collectionId, minPrice, maxPrice }: PageQuery): number {
  return [inStockOnly, collectionId !== "", minPrice !== undefined, maxPrice !== undefined].filter(Boolean)
    .length;
}

/** Whether the query has search words or filters. */
export function isFiltered(query: PageQuery): boolean {
  return query.words !== "" || filterCount(query) > 0;
}

/** Whether no price can match. The server refuses such a list. */
export function isPriceRangeReversed({ minPrice, maxPrice }: PageQuery): boolean {
  return minPrice !== undefined && maxPrice !== undefined && minPrice > maxPrice;
}

function priceOf(text: string | null): number | undefined {
  const price = Number(text?.trim().replace(",", ".") || Number.NaN);
  return Number.isFinite(price) && price >= 0 ? price : undefined;
}
