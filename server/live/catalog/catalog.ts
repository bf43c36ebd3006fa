import { setImmediate as nextTurn } from "node:timers/promises";
import type { Collection } from "../../inventory/collection.ts";
import type { Mirror } from "../mirror.ts";
import { CHANGED, CHANGED_ALL, type ProductTable } from "../products/product-table.ts";
import type { RowSet } from "../products/row-set.ts";
import { foldText } from "../products/text-order.ts";
import { CollectionIds } from "./collection-ids.ts";
import { IdRanks } from "./id-ranks.ts";
import type { ListPage, ListQuery } from "./list-query.ts";
import {
  CollectionOrder,
  LIST_ORDERS,
  type ListCursor,
  type ListOrder,
  ProductOrder,
  type SortOrder,
  sortById,
} from "./product-orders.ts";
import { partition, type Rows } from "./sorted-index.ts";
import { StockIndex } from "./stock-index.ts";
import { TextIndex } from "./text-index.ts";

export type { ListPage, ListQuery } from "./list-query.ts";
export { LIST_ORDERS, type ListCursor, type ListOrder };

/**
 * Steps of a scan through an order that take as long as one comparison of products. A step mostly tests one bit;
 * comparing names reads two texts.
 */
const STEPS_PER_COMPARISON: Readonly<Record<ListOrder, number>> = {
  name: 10,
  price: 2,
  available: 2,
  update_time: 2,
};

/** The part of a query that is tested product by product. */
interface Filter {
  /** The rows that contain the words; absent without words. */
  readonly withWords: RowSet | undefined;
  readonly inStockOnly: boolean;
  readonly collection: number | undefined;
  /** Whether the query limits the price. */
  readonly hasPriceRange: boolean;
  readonly minPrice: number;
  readonly maxPrice: number;
}

/**
 * Time after which no further order is built in the same turn of the event loop. An order that takes longer is
 * finished. A small catalog needs one turn.
 */
const BUILD_SLICE_MS = 5;

const EMPTY: ListPage = { stocks: [], total: 0, next: undefined };

/** Sorted and searchable lists of the visible products, updated with the mirror's table. Empty until it is loaded. */
export class Catalog {
  readonly #mirror: Mirror;
  readonly #table: ProductTable;
  readonly #ids: IdRanks;
  readonly #orders: Readonly<Record<SortOrder, ProductOrder>>;
  readonly #byCollection: CollectionOrder;
  readonly #indexes: readonly (ProductOrder | CollectionOrder)[];
  readonly #stock: StockIndex;
  readonly #text: TextIndex;
  /** Rows sorted by ID, while orders are built from them. Dropped when a product becomes visible or invisible. */
  #rowsById: Uint32Array | undefined;
  readonly #collectionIds: CollectionIds;
  readonly #firstSorted = Promise.withResolvers<void>();
  /** Resolves when the products are loaded and every order is built for the first time. */
  readonly firstSorted: Promise<void> = this.#firstSorted.promise;

  constructor(mirror: Mirror) {
    this.#mirror = mirror;
    const { table } = mirror;
    this.#table = table;
    this.#ids = new IdRanks(table);
    this.#orders = {
      name: new ProductOrder(table, "name", this.#ids),
      price: new ProductOrder(table, "price", this.#ids),
      available: new ProductOrder(table, "available", this.#ids),
      update_time: new ProductOrder(table, "update_time", this.#ids),
      product_id: new ProductOrder(table, "product_id", this.#ids),
    };
    this.#byCollection = new CollectionOrder(table, this.#ids);
    this.#collectionIds = new CollectionIds(table, this.#byCollection);
    this.#indexes = [...Object.values(this.#orders), this.#byCollection];
    this.#stock = new StockIndex(table, this.#ids);
    this.#text = new TextIndex(table);
    for (const row of table.visibleRows()) {
      this.#ids.add(row);
      this.#afterChange(row, CHANGED.text);
    }
    table.observe({
      beforeChange: (row, changed) => this.#beforeChange(row, changed),
      afterChange: (row, changed) => this.#afterChange(row, changed),
    });
    mirror.on("loaded", () => void this.#buildAll());
  }

  /** Whether every order is built. A list that needs one before sorts it first, up to 1.5 s with a million products. */
  get isSorted(): boolean {
    return [...this.#indexes, this.#stock].every(({ isBuilt }) => isBuilt);
  }

  get collections(): readonly Collection[] {
    return this.#mirror.collections;
  }

  /** The IDs of all collections that have a visible product, in natural order. */
  get collectionIds(): readonly string[] {
    return this.#mirror.isLoaded ? this.#collectionIds.read(() => this.#build(this.#byCollection)) : [];
  }

  /** Whether the products are known. False until the first load after a start. */
  get isLoaded(): boolean {
    return this.#mirror.isLoaded;
  }

  get isStale(): boolean {
    return this.#mirror.isStale;
  }

  /** When it was last known to be current, ms since 1970; 0 if never. */
  get currentTimeMs(): number {
    return this.#mirror.currentTimeMs;
  }

  /** See `Mirror.caughtUp`. */
  caughtUp(): Promise<void> | undefined {
    return this.#mirror.caughtUp();
  }

  /** The visible products in an order. */
  inOrder(order: SortOrder): ProductOrder {
    this.#build(this.#orders[order]);
    return this.#orders[order];
  }

  list(query: ListQuery): ListPage {
    const filter = this.#filterOf(query);
    if (filter === undefined || !this.#mirror.isLoaded) {
      return EMPTY;
    }
    for (const index of [this.#orders[query.order], this.#orders.price, this.#byCollection, this.#stock]) {
      this.#build(index);
    }
    const matching = this.#matching(filter);
    // One more than the limit shows whether there is a next page.
    const found = matching.size === 0 ? [] : this.#first(query.limit + 1, matching, filter, query);
    const shown = found.slice(0, query.limit);
    const last = shown.at(-1);
    return {
      stocks: shown.map((row) => this.#table.state(row)),
      total: matching.size,
      next:
        found.length > query.limit && last !== undefined
          ? this.#orders[query.order].cursorOf(last)
          : undefined,
    };
  }

  /** `undefined` if no product can match. */
  #filterOf({ words, inStockOnly, collectionId, minPrice, maxPrice }: ListQuery): Filter | undefined {
    const collection = collectionId === "" ? undefined : this.#table.collectionNumber(collectionId);
    if (collectionId !== "" && collection === undefined) {
      return undefined;
    }
    const folded = foldText(words)
      .split(/\s+/)
      .filter((word) => word !== "");
    return {
      withWords: folded.length === 0 ? undefined : this.#text.find(folded),
      inStockOnly,
      collection,
      hasPriceRange: minPrice !== undefined || maxPrice !== undefined,
      minPrice: minPrice ?? 0,
      maxPrice: maxPrice ?? Number.POSITIVE_INFINITY,
    };
  }

  /** The rows that match. */
  #matching(filter: Filter): Rows {
    const { withWords, inStockOnly } = filter;
    const ranged = this.#inRange(filter);
    if (withWords === undefined) {
      return ranged;
    }
    const rows = inStockOnly ? withWords.copy() : withWords;
    if (inStockOnly) {
      rows.intersect(this.#stock.rows);
    }
    if (filter.collection === undefined && !filter.hasPriceRange) {
      return rows;
    }
    const candidates = ranged.size < rows.size ? ranged : rows;
    const matches = new Uint32Array(candidates.size);
    let size = 0;
    candidates.forEach((row) => {
      if (this.#matches(row, filter)) {
        matches[size++] = row;
      }
    });
    return {
      size,
      forEach: (visit) => {
        for (let at = 0; at < size; at++) {
          visit(matches[at] as number);
        }
      },
    };
  }

  /** The rows that match except for the words: each combination of collection, price and stock is a range of an order. */
  #inRange({ inStockOnly, collection, minPrice, maxPrice }: Filter): Rows {
    const byPrice = inStockOnly ? this.#stock.byPrice : this.#orders.price;
    const byCollection = inStockOnly ? this.#stock.byCollection : this.#byCollection;
    return collection === undefined
      ? byPrice.range(minPrice, maxPrice)
      : byCollection.range(collection, minPrice, maxPrice);
  }

  /**
   * The first rows that match, in the query's order and after its cursor: by a scan of the order, or by selection from
   * all matching rows, whichever is expected to be cheaper.
   */
  #first(count: number, matching: Rows, filter: Filter, query: ListQuery): number[] {
    const steps = matching.size * STEPS_PER_COMPARISON[query.order];
    const stepsExpected = (count * this.#orders[query.order].index.size) / matching.size;
    const found = stepsExpected <= steps ? this.#scan(count, steps, filter, query) : undefined;
    return found ?? this.#select(count, matching, query);
  }

  /** `undefined` if this many steps are not enough, because matching rows are not distributed evenly over the order. */
  #scan(
    count: number,
    steps: number,
    filter: Filter,
    { order, descending, after }: ListQuery,
  ): number[] | undefined {
    const { index, numberOf, comparerTo } = this.#orders[order];
    const [low, high] = boundsOf(order, filter);
    const compareToCursor = after && comparerTo(after);
    const isBelow = (row: number): boolean => numberOf !== undefined && numberOf(row) < low;
    const isAbove = (row: number): boolean => numberOf !== undefined && numberOf(row) > high;
    const isBeyond = descending ? isBelow : isAbove;
    const found: number[] = [];
    let left = steps;
    const visit = (row: number): boolean => {
      if (isBeyond(row)) {
        return false;
      }
      if (this.#matches(row, filter)) {
        found.push(row);
      }
      left -= 1;
      return found.length < count && left > 0;
    };
    if (descending) {
      index.descending(
        (row) => !isAbove(row) && (compareToCursor === undefined || compareToCursor(row) < 0),
        visit,
      );
    } else {
      index.ascending(
        (row) => !isBelow(row) && (compareToCursor === undefined || compareToCursor(row) > 0),
        visit,
      );
    }
    return left > 0 || found.length === count ? found : undefined;
  }

  /** Visits all matching rows and keeps the first `count`. */
  #select(count: number, matching: Rows, { order, descending, after }: ListQuery): number[] {
    const { comparerTo, compare } = this.#orders[order];
    const direction = descending ? -1 : 1;
    const compareToCursor = after && comparerTo(after);
    const best: number[] = [];
    matching.forEach((row) => {
      if (compareToCursor !== undefined && direction * compareToCursor(row) <= 0) {
        return;
      }
      if (best.length === count) {
        if (direction * compare(row, best[count - 1] as number) > 0) {
          return;
        }
        best.pop();
      }
      best.splice(
        partition(best.length, (n) => direction * compare(best[n] as number, row) > 0),
        0,
        row,
      );
    });
    return best;
  }

  #matches(row: number, filter: Filter): boolean {
    const { withWords, inStockOnly, collection, hasPriceRange } = filter;
    if (withWords !== undefined && !withWords.has(row)) {
      return false;
    }
    if (inStockOnly && !this.#stock.rows.has(row)) {
      return false;
    }
    if (collection !== undefined && this.#table.collection(row) !== collection) {
      return false;
    }
    if (!hasPriceRange) {
      return true;
    }
    const price = this.#table.price(row);
    return price >= filter.minPrice && price <= filter.maxPrice;
  }

  /** Builds the missing orders in several turns of the event loop, so that it serves requests in between. */
  async #buildAll(): Promise<void> {
    let sliceEnd = performance.now() + BUILD_SLICE_MS;
    for (const order of [...this.#indexes, this.#stock]) {
      if (performance.now() > sliceEnd) {
        await nextTurn();
        sliceEnd = performance.now() + BUILD_SLICE_MS;
      }
      this.#build(order);
    }
    this.#rowsById = undefined;
    this.#firstSorted.resolve();
  }

  /** Sorts all rows of an order, ten times faster than inserting them. Builds the order that it is derived from first. */
  #build(order: ProductOrder | CollectionOrder | StockIndex): void {
    const { price } = this.#orders;
    if (order.isBuilt) {
      return;
    }
    if (order instanceof ProductOrder) {
      if (this.#rowsById === undefined) {
        this.#rowsById = sortById(this.#table);
        this.#ids.assign(this.#rowsById);
      }
      order.build(this.#rowsById);
    } else if (order instanceof CollectionOrder) {
      this.#build(price);
      order.build(price.index.rows());
    } else {
      this.#build(this.#byCollection);
      order.build(price, this.#byCollection);
    }
  }

  #beforeChange(row: number, changed: number): void {
    this.#stock.beforeChange(row, changed);
    if (changed === CHANGED_ALL) {
      this.#rowsById = undefined;
      this.#text.remove(row);
    }
    for (const { index, movedBy, isBuilt } of this.#indexes) {
      if (isBuilt && (changed & movedBy) !== 0) {
        index.delete(row);
      }
    }
    if (changed === CHANGED_ALL) {
      this.#ids.remove(row);
    }
  }

  #afterChange(row: number, changed: number): void {
    if (changed === CHANGED_ALL) {
      this.#rowsById = undefined;
      this.#ids.add(row);
    }
    this.#stock.afterChange(row, changed);
    if ((changed & CHANGED.text) !== 0) {
      this.#text.update(row);
    }
    for (const { index, movedBy, isBuilt } of this.#indexes) {
      if (isBuilt && (changed & movedBy) !== 0) {
        index.insert(row);
      }
    }
    if (changed === CHANGED_ALL && this.#ids.isOutdated && this.#orders.product_id.isBuilt) {
      this.#ids.assign(this.#orders.product_id.index.rows());
    }
  }
}

/** The range of sort keys that the filter allows. A scan stays inside of it. */
function boundsOf(
  order: ListOrder,
  { inStockOnly, minPrice, maxPrice }: Filter,
): [low: number, high: number] {
  if (order === "price") {
    return [minPrice, maxPrice];
  }
  return [order === "available" && inStockOnly ? Number.MIN_VALUE : 0, Number.POSITIVE_INFINITY];
}
