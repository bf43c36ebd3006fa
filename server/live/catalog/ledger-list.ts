import { setImmediate as nextTurn } from "node:timers/promises";
import type { ProductTable } from "../products/product-table.ts";
import type { Catalog } from "./catalog.ts";
import type { ProductOrder } from "./product-orders.ts";
import { partition } from "./sorted-index.ts";

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

/** A row and its sort key at the time when it was selected. */
interface Place {
  readonly row: number;
  readonly key: number;
}

/** The rows that match. */
interface Matches {
  readonly visible: Uint32Array;
  readonly deleted: Uint32Array;
}

/** Time after which a scan lets the event loop serve other requests, and rows between two looks at the clock. */
const SLICE_MS = 2;
const ROWS_PER_CHECK = 4_096;
/** Steps through an order, before the page is selected from all matching rows instead. */
const STEPS_MAX = 20_000;

const EMPTY: LedgerPage = { productIds: [], total: 0, next: undefined };

/**
 * Selects the pages of a list of ledgers from the mirror's table. Counting the products that match takes a scan of the table,
 * a few milliseconds for a million products, in slices. One page is selected at a time, so that lists of many callers take
 * turns too.
 */
export class LedgerList {
  readonly #catalog: Catalog;
  readonly #table: ProductTable;
  #latest: Promise<unknown> = Promise.resolve();

  constructor(catalog: Catalog, table: ProductTable) {
    this.#catalog = catalog;
    this.#table = table;
  }

  page(query: LedgerQuery): Promise<LedgerPage> {
    const page = this.#latest.then(() => this.#select(query));
    this.#latest = page.catch(() => {});
    return page;
  }

  async #select(query: LedgerQuery): Promise<LedgerPage> {
    const matches = this.#matcherOf(query.filter);
    if (matches === undefined) {
      return EMPTY;
    }
    const order = this.#catalog.inOrder(query.order);
    const found = await this.#scan(query.filter.deleted, matches);
    // One more than the limit shows whether there is a next page.
    const count = query.limit + 1;
    const visible =
      this.#walk(order, query, count, found.visible.length, matches) ??
      (await this.#first(order, query, count, found.visible));
    const deleted = await this.#first(order, query, count, found.deleted);
    // A full load may have removed products since.
    const isThere = ({ row }: Place): boolean => this.#table.isInUse(row);
    const places = merged(visible.filter(isThere), deleted.filter(isThere), comparison(order, query)).slice(
      0,
      count,
    );
    const productIds = places.map(({ row }) => this.#table.productId(row));
    const [last, productId] = [places[query.limit - 1], productIds[query.limit - 1]];
    return {
      productIds: productIds.slice(0, query.limit),
      total: found.visible.length + found.deleted.length,
      next:
        places.length > query.limit && last !== undefined && productId !== undefined
          ? { key: last.key, productId }
          : undefined,
    };
  }

  /** Tests a row, except for its visibility. `undefined` if no product can match. */
  #matcherOf(filter: LedgerFilter): ((row: number) => boolean) | undefined {
    const table = this.#table;
    const { reservedOnly, shortfallOnly, collectionId } = filter;
    const collection = collectionId === "" ? undefined : table.collectionNumber(collectionId);
    if (collectionId !== "" && collection === undefined) {
      return undefined;
    }
    const maxAvailable = filter.maxAvailable ?? Number.POSITIVE_INFINITY;
    const changedSinceMs = filter.changedSinceMs ?? 0;
    return (row) =>
      table.available(row) <= maxAvailable &&
      table.updateTimeMs(row) >= changedSinceMs &&
      (!reservedOnly || table.isReserved(row)) &&
      (!shortfallOnly || table.isShort(row)) &&
      (collection === undefined || table.collection(row) === collection);
  }

  /** All rows that match. */
  async #scan(deletedFilter: LedgerFilter["deleted"], matches: (row: number) => boolean): Promise<Matches> {
    const table = this.#table;
    const visible = new Uint32Array(deletedFilter === "only" ? 0 : table.rows);
    const deleted = new Uint32Array(deletedFilter === "excluded" ? 0 : table.rows);
    let visibleCount = 0;
    let deletedCount = 0;
    await inSlices(table.rows, (row) => {
      if (!table.isInUse(row) || !matches(row)) {
        return;
      }
      // Rows that are added meanwhile are beyond the arrays.
      if (table.isVisible(row)) {
        visible[visibleCount] = row;
        visibleCount += 1;
      } else {
        deleted[deletedCount] = row;
        deletedCount += 1;
      }
    });
    return {
      visible: visible.subarray(0, Math.min(visibleCount, visible.length)),
      deleted: deleted.subarray(0, Math.min(deletedCount, deleted.length)),
    };
  }

  /**
   * The first visible rows after the cursor that match, by a walk through the order. `undefined` if matching rows are so few
   * or so far that it takes too many steps.
   */
  #walk(
    { index, comparerTo, numberOf }: ProductOrder,
    { descending, after }: LedgerQuery,
    count: number,
    total: number,
    matches: (row: number) => boolean,
  ): Place[] | undefined {
    if (total === 0) {
      return [];
    }
    if ((count * index.size) / total > STEPS_MAX) {
      return undefined;
    }
    const compareToCursor = after && comparerTo(after);
    const places: Place[] = [];
    let left = STEPS_MAX;
    const visit = (row: number): boolean => {
      if (matches(row)) {
        places.push({ row, key: numberOf?.(row) ?? 0 });
      }
      left -= 1;
      return places.length < count && left > 0;
    };
    if (descending) {
      index.descending(compareToCursor && ((row) => compareToCursor(row) < 0), visit);
    } else {
      index.ascending(compareToCursor && ((row) => compareToCursor(row) > 0), visit);
    }
    return left > 0 || places.length === count ? places : undefined;
  }

  /** The first of some rows after the cursor, by selection. Keys may change meanwhile, so each is read once. */
  async #first(order: ProductOrder, query: LedgerQuery, count: number, rows: Uint32Array): Promise<Place[]> {
    const { comparerTo, numberOf } = order;
    const direction = query.descending ? -1 : 1;
    const compareToCursor = query.after && comparerTo(query.after);
    const compare = comparison(order, query);
    const best: Place[] = [];
    await inSlices(rows.length, (at) => {
      const row = rows[at] as number;
      if (compareToCursor !== undefined && direction * compareToCursor(row) <= 0) {
        return;
      }
      const place = { row, key: numberOf?.(row) ?? 0 };
      if (best.length === count) {
        if (compare(place, best[count - 1] as Place) > 0) {
          return;
        }
        best.pop();
      }
      best.splice(
        partition(best.length, (n) => compare(best[n] as Place, place) > 0),
        0,
        place,
      );
    });
    return best;
  }
}

/** Compares places in the query's direction: by key, then by ID. */
function comparison(order: ProductOrder, { descending }: LedgerQuery): (a: Place, b: Place) => number {
  const direction = descending ? -1 : 1;
  return (a, b) => direction * (a.key - b.key || order.compareIds(a.row, b.row));
}

function merged(a: readonly Place[], b: readonly Place[], compare: (a: Place, b: Place) => number): Place[] {
  return b.length === 0 ? [...a] : [...a, ...b].sort(compare);
}

/** Visits the numbers below `count`, in several turns of the event loop. */
async function inSlices(count: number, visit: (n: number) => void): Promise<void> {
  let sliceEnd = performance.now() + SLICE_MS;
  for (let n = 0; n < count; n++) {
    if (n % ROWS_PER_CHECK === 0 && performance.now() > sliceEnd) {
      await nextTurn();
      sliceEnd = performance.now() + SLICE_MS;
    }
    visit(n);
  }
}
