import { compareIds } from "../inventory/reservation.ts";
import type { Mirror } from "./mirror.ts";

export const LEDGER_ORDERS = ["product_id", "available", "update_time"] as const;
export type LedgerOrder = (typeof LEDGER_ORDERS)[number];

/** Which ledgers are listed. A ledger must match every filter that is set. */
export interface LedgerFilter {
  readonly maxAvailable: number | undefined;
  readonly shortfallOnly: boolean;
  readonly reservedOnly: boolean;
  readonly deleted: "excluded" | "included" | "only";
  /** Empty: any collection or none. */
  readonly collectionId: string;
  /** ms since 1970. */
  readonly changedSinceMs: number | undefined;
}

/** A place in an order: the sort key, 0 in the order by product ID, and the ID. */
export interface LedgerCursor {
  readonly key: number;
  readonly productId: string;
}

export interface LedgerQuery {
  readonly filter: LedgerFilter;
  readonly order: LedgerOrder;
  readonly descending: boolean;
  readonly limit: number;
  readonly after: LedgerCursor | undefined;
}

export interface LedgerPage {
  readonly productIds: readonly string[];
  /** Number of products that match. */
  readonly total: number;
  /** The cursor of the next page; absent on the last page. */
  readonly next: LedgerCursor | undefined;
}

/** Selects the products of a list of ledgers from the mirror. */
export function selectLedgers({ table }: Mirror, query: LedgerQuery): LedgerPage {
  const { filter, order, descending, limit, after } = query;
  const collection = filter.collectionId === "" ? undefined : table.collectionNumber(filter.collectionId);
  if (filter.collectionId !== "" && collection === undefined) {
    return { productIds: [], total: 0, next: undefined };
  }
  const direction = descending ? -1 : 1;
  const compare = (a: LedgerCursor, b: LedgerCursor): number =>
    direction * (a.key - b.key || compareIds(a.productId, b.productId));
  const found: LedgerCursor[] = [];
  let total = 0;
  for (let row = 0; row < table.rows; row++) {
    if (
      !table.isInUse(row) ||
      (filter.deleted !== "included" && table.isVisible(row) !== (filter.deleted === "excluded")) ||
      (filter.reservedOnly && !table.isReserved(row)) ||
      (filter.shortfallOnly && !table.isShort(row)) ||
      table.available(row) > (filter.maxAvailable ?? Number.POSITIVE_INFINITY) ||
      table.updateTimeMs(row) < (filter.changedSinceMs ?? 0) ||
      (collection !== undefined && table.collection(row) !== collection)
    ) {
      continue;
    }
    total += 1;
    const key =
      order === "available" ? table.available(row) : order === "update_time" ? table.updateTimeMs(row) : 0;
    const place = { key, productId: table.state(row).productId };
    if (after === undefined || compare(place, after) > 0) {
      found.push(place);
    }
  }
  const shown = found.sort(compare).slice(0, limit);
  return {
    productIds: shown.map(({ productId }) => productId),
    total,
    next: found.length > limit ? shown.at(-1) : undefined,
  };
}
