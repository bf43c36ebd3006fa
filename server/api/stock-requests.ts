import type { Duration } from "@bufbuild/protobuf/wkt";
import {
  type BatchGetStockRequest,
  ListOrder as ListOrderMessage,
  type ListStockRequest,
  type WatchStockRequest,
} from "../../gen/inventory/v1/stock_pb.ts";
import { BATCH_PRODUCTS_MAX, show, Violations } from "../inventory/validation.ts";
import { LIST_ORDERS, type ListCursor, type ListOrder, type ListQuery } from "../live/catalog/catalog.ts";
import type { WatchRequest } from "../live/watch/watch.ts";
import { decodeToken, encodeToken, readDuration, readPageSize } from "./fields.ts";

const QUERY_BYTES_MAX = 256;
const MIN_INTERVAL_MS_DEFAULT = 100;
const MIN_INTERVAL_MS_MAX = 10_000;

const ORDERS: Readonly<Record<ListOrderMessage, ListOrder>> = {
  [ListOrderMessage.UNSPECIFIED]: "name",
  [ListOrderMessage.NAME]: "name",
  [ListOrderMessage.PRICE]: "price",
  [ListOrderMessage.AVAILABLE]: "available",
  [ListOrderMessage.UPDATE_TIME]: "update_time",
};

export function readBatchGetStock(request: BatchGetStockRequest): readonly string[] {
  const violations = new Violations();
  const { productIds } = request;
  readProductIds(violations, productIds, 1);
  violations.throwIfAny();
  return productIds;
}

export function readListStock(request: ListStockRequest): ListQuery {
  const violations = new Violations();
  const limit = readPageSize(violations, request.pageSize);
  violations.text("query", request.query, QUERY_BYTES_MAX);
  violations.optionalId("collection_id", request.collectionId);
  const minPrice =
    request.minPrice === undefined ? undefined : violations.price("min_price", request.minPrice);
  const maxPrice =
    request.maxPrice === undefined ? undefined : violations.price("max_price", request.maxPrice);
  // An invalid price was read as 0, and has its own violation.
  const isMaxValid = maxPrice === request.maxPrice;
  if (minPrice !== undefined && maxPrice !== undefined && isMaxValid && minPrice > maxPrice) {
    violations.add(
      "min_price",
      `is ${minPrice}, above max_price, which is ${maxPrice}; give a min_price of at most max_price`,
    );
  }
  const order = ORDERS[request.order];
  if (order === undefined) {
    violations.add("order", `is ${request.order}; it must be 0 to ${LIST_ORDERS.length}`);
  }
  const after = readPageToken(violations, request.pageToken, order ?? "name", request.descending);
  violations.throwIfAny();
  return {
    words: request.query,
    inStockOnly: request.inStockOnly,
    collectionId: request.collectionId,
    minPrice,
    maxPrice,
    order: order ?? "name",
    descending: request.descending,
    limit,
    after,
  };
}

export function readWatchStock(request: WatchStockRequest): WatchRequest {
  const violations = new Violations();
  readProductIds(violations, request.productIds, 0);
  const minIntervalMs = readMinInterval(violations, request.minInterval);
  violations.throwIfAny();
  return {
    productIds: request.productIds.length === 0 ? undefined : [...new Set(request.productIds)],
    minIntervalMs,
  };
}

/** The token of the page that starts after a place in an order. */
export function pageTokenOf({ order, descending }: ListQuery, cursor: ListCursor): string {
  return encodeToken(JSON.stringify(["list", order, descending, cursor.key, cursor.productId]));
}

function readPageToken(
  violations: Violations,
  token: string,
  order: ListOrder,
  descending: boolean,
): ListCursor | undefined {
  const text = decodeToken(violations, token, /^\["list",.*\]$/s)?.[0];
  if (text === undefined) {
    return undefined;
  }
  const parts = parseArray(text);
  const [, tokenOrder, tokenDescending, key, productId] = parts ?? [];
  const isOfOrder = tokenOrder === order && tokenDescending === descending;
  const isKey = order === "name" ? typeof key === "string" : typeof key === "number";
  if (
    !isOfOrder ||
    !isKey ||
    typeof productId !== "string" ||
    (typeof key !== "string" && typeof key !== "number")
  ) {
    violations.add(
      "page_token",
      `is ${show(token)}, which belongs to a list in another order; keep order and descending on every page`,
    );
    return undefined;
  }
  return { key, productId };
}

function parseArray(text: string): unknown[] | undefined {
  try {
    const parsed: unknown = JSON.parse(text);
    return Array.isArray(parsed) ? parsed : undefined;
  } catch {
    return undefined;
  }
}

function readProductIds(violations: Violations, productIds: readonly string[], countMin: number): void {
  if (productIds.length < countMin || productIds.length > BATCH_PRODUCTS_MAX) {
    violations.add(
      "product_ids",
      `has ${productIds.length} entries; give ${countMin} to ${BATCH_PRODUCTS_MAX}`,
    );
    return;
  }
  for (const [index, productId] of productIds.entries()) {
    violations.id(`product_ids[${index}]`, productId);
  }
}

function readMinInterval(violations: Violations, interval: Duration | undefined): number {
  if (interval === undefined) {
    return MIN_INTERVAL_MS_DEFAULT;
  }
  return readDuration(violations, "min_interval", interval, 0, MIN_INTERVAL_MS_MAX);
}
