import type { Collection } from "../../inventory/collection.ts";
import type { ProductState } from "../../inventory/feed.ts";
import type { Mirror } from "../mirror.ts";
import { CHANGED, CHANGED_ALL, type ProductTable } from "../products/product-table.ts";
import { foldText } from "../products/text-order.ts";
import {
  CollectionOrder,
  LIST_ORDERS,
  type ListOrder,
  type ListPlace,
  ProductOrder,
  sortById,
} from "./product-orders.ts";
import type { RowSet } from "./row-set.ts";
import { partition, type Rows } from "./sorted-index.ts";
import { StockIndex } from "./stock-index.ts";
import { TextIndex } from "./text-index.ts";

export { LIST_ORDERS, type ListOrder, type ListPlace };

/**
 * How many steps through an order take as long as comparing one product to others: most are no more than a look at
 * one bit, and to compare names means to read two texts.
 */
const STEPS_PER_COMPARISON: Readonly<Record<ListOrder, number>> = {
  name: 10,
  price: 2,
  available: 2,
  update_time: 2,
};

/** What to list. */
export interface ListQuery {
  /** Words that must all be in the name or the ID, in any case, accents aside. */
  readonly words: string;
  readonly inStockOnly: boolean;
  /** Empty: of any collection or none. */
  readonly collectionId: string;
  readonly minPrice: number | undefined;
  readonly maxPrice: number | undefined;
  readonly order: ListOrder;
  readonly descending: boolean;
  readonly limit: number;
  /** Go on after this place. It stays valid whatever changes meanwhile. */
  readonly after: ListPlace | undefined;
}

export interface ListPage {
  readonly stocks: readonly ProductState[];
  /** How many products match in all. */
  readonly total: number;
  /** Where the next page goes on; absent where this is the last. */
  readonly next: ListPlace | undefined;
}

/** The catalog as a page of the shop reads it. */
export interface CatalogView {
  list(query: ListQuery): ListPage;
  readonly collections: readonly Collection[];
  readonly isStale: boolean;
}

/** What of a query is decided product by product. */
interface Filter {
  /** The rows that have the words; absent where there are none to have. */
  readonly withWords: RowSet | undefined;
  readonly inStockOnly: boolean;
  readonly collection: number | undefined;
  /** Whether a price is asked for. */
  readonly isPriced: boolean;
  readonly minPrice: number;
  readonly maxPrice: number;
}

/** For how long orders are built in one turn of the event loop; one that takes longer is finished. A small catalog needs one turn. */
const BUILDING_MS = 5;

const EMPTY: ListPage = { stocks: [], total: 0, next: undefined };

/** Every visible product in every order, kept with the mirror's table. Lists nothing until the mirror is loaded. */
export class Catalog implements CatalogView {
  readonly #mirror: Mirror;
  readonly #table: ProductTable;
  readonly #orders: Readonly<Record<ListOrder, ProductOrder>>;
  readonly #byCollection: CollectionOrder;
  readonly #indexes: readonly (ProductOrder | CollectionOrder)[];
  readonly #stock: StockIndex;
  readonly #text: TextIndex;
  /** Rows by ID while orders are being built from them; dropped when a product appears or vanishes. */
  #rowsById: Uint32Array | undefined;

  constructor(mirror: Mirror) {
    this.#mirror = mirror;
    const { table } = mirror;
    this.#table = table;
    this.#orders = {
      name: new ProductOrder(table, "name"),
      price: new ProductOrder(table, "price"),
      available: new ProductOrder(table, "available"),
      update_time: new ProductOrder(table, "update_time"),
    };
    this.#byCollection = new CollectionOrder(table);
    this.#indexes = [...Object.values(this.#orders), this.#byCollection];
    this.#stock = new StockIndex(table);
    this.#text = new TextIndex(table);
    for (const row of table.visibleRows()) {
      this.#entered(row, CHANGED.text);
    }
    table.follow({
      leaving: (row, changed) => this.#leaving(row, changed),
      entered: (row, changed) => this.#entered(row, changed),
    });
    mirror.on("loaded", () => this.#buildAll());
  }

  /** Whether every order is built. Lists are exact before, but the first of an order sorts it; with a million products for up to 1.5 s. */
  get isSorted(): boolean {
    return [...this.#indexes, this.#stock].every(({ isBuilt }) => isBuilt);
  }

  get collections(): readonly Collection[] {
    return this.#mirror.collections;
  }

  get isStale(): boolean {
    return this.#mirror.isStale;
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
    // One more than asked for tells whether there is a next page.
    const found = matching.size === 0 ? [] : this.#first(query.limit + 1, matching, filter, query);
    const shown = found.slice(0, query.limit);
    const last = shown.at(-1);
    return {
      stocks: shown.map((row) => this.#table.state(row)),
      total: matching.size,
      next:
        found.length > query.limit && last !== undefined
          ? this.#orders[query.order].placeOf(last)
          : undefined,
    };
  }

  /** `undefined` where nothing can match. */
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
      isPriced: minPrice !== undefined || maxPrice !== undefined,
      minPrice: minPrice ?? 0,
      maxPrice: maxPrice ?? Number.POSITIVE_INFINITY,
    };
  }

  /** All that match. */
  #matching(filter: Filter): Rows {
    const { withWords, inStockOnly } = filter;
    const ranged = this.#inRange(filter);
    if (withWords === undefined) {
      return ranged;
    }
    const rows = inStockOnly ? withWords.copy() : withWords;
    if (inStockOnly) {
      rows.keepIn(this.#stock.rows);
    }
    if (filter.collection === undefined && !filter.isPriced) {
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

  /** All that match but for the words: each mix of collection, price and stock is a range of some order. */
  #inRange({ inStockOnly, collection, minPrice, maxPrice }: Filter): Rows {
    const byPrice = inStockOnly ? this.#stock.byPrice : this.#orders.price;
    const byCollection = inStockOnly ? this.#stock.byCollection : this.#byCollection;
    return collection === undefined
      ? byPrice.range(minPrice, maxPrice)
      : byCollection.range(collection, minPrice, maxPrice);
  }

  /** The first rows that match, in the query's order, after its place: found on a walk through the order, or among all that match. */
  #first(count: number, matching: Rows, filter: Filter, query: ListQuery): number[] {
    const steps = matching.size * STEPS_PER_COMPARISON[query.order];
    const stepsExpected = (count * this.#orders[query.order].index.size) / matching.size;
    const found = stepsExpected <= steps ? this.#walk(count, steps, filter, query) : undefined;
    return found ?? this.#select(count, matching, query);
  }

  /** `undefined` where so many steps are not enough: what matches is not spread evenly over the order. */
  #walk(
    count: number,
    steps: number,
    filter: Filter,
    { order, descending, after }: ListQuery,
  ): number[] | undefined {
    const { index, numberOf, comparerTo } = this.#orders[order];
    const [low, high] = boundsOf(order, filter);
    const toPlace = after && comparerTo(after);
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
      index.descending((row) => !isAbove(row) && (toPlace === undefined || toPlace(row) < 0), visit);
    } else {
      index.ascending((row) => !isBelow(row) && (toPlace === undefined || toPlace(row) > 0), visit);
    }
    return left > 0 || found.length === count ? found : undefined;
  }

  /** Goes through all that match and keeps the first ones. */
  #select(count: number, matching: Rows, { order, descending, after }: ListQuery): number[] {
    const { comparerTo, compare } = this.#orders[order];
    const way = descending ? -1 : 1;
    const toPlace = after && comparerTo(after);
    const best: number[] = [];
    matching.forEach((row) => {
      if (toPlace !== undefined && way * toPlace(row) <= 0) {
        return;
      }
      if (best.length === count) {
        if (way * compare(row, best[count - 1] as number) > 0) {
          return;
        }
        best.pop();
      }
      best.splice(
        partition(best.length, (n) => way * compare(best[n] as number, row) > 0),
        0,
        row,
      );
    });
    return best;
  }

  #matches(row: number, filter: Filter): boolean {
    const { withWords, inStockOnly, collection, isPriced } = filter;
    if (withWords !== undefined && !withWords.has(row)) {
      return false;
    }
    if (inStockOnly && !this.#stock.rows.has(row)) {
      return false;
    }
    if (collection !== undefined && this.#table.collection(row) !== collection) {
      return false;
    }
    if (!isPriced) {
      return true;
    }
    const price = this.#table.price(row);
    return price >= filter.minPrice && price <= filter.maxPrice;
  }

  /** Builds what is not built yet, one order in a turn of the event loop where it takes long, so that others have time in between. */
  #buildAll(): void {
    const orders = [...this.#indexes, this.#stock].filter(({ isBuilt }) => !isBuilt);
    const buildSome = (): void => {
      for (const end = performance.now() + BUILDING_MS; performance.now() < end; ) {
        const next = orders.shift();
        if (next === undefined) {
          this.#rowsById = undefined;
          return;
        }
        this.#build(next);
      }
      setImmediate(buildSome);
    };
    buildSome();
  }

  /** Sorts at once what was loaded: one by one takes ten times as long. What an order is made from is built first. */
  #build(order: ProductOrder | CollectionOrder | StockIndex): void {
    const { price } = this.#orders;
    if (order.isBuilt) {
      return;
    }
    if (order instanceof ProductOrder) {
      this.#rowsById ??= sortById(this.#table);
      order.build(this.#rowsById);
    } else if (order instanceof CollectionOrder) {
      this.#build(price);
      order.build(price.index.rows());
    } else {
      this.#build(this.#byCollection);
      order.build(price, this.#byCollection);
    }
  }

  #leaving(row: number, changed: number): void {
    this.#stock.leaving(row, changed);
    if (changed === CHANGED_ALL) {
      this.#rowsById = undefined;
      this.#text.remove(row);
    }
    for (const { index, movedBy, isBuilt } of this.#indexes) {
      if (isBuilt && (changed & movedBy) !== 0) {
        index.delete(row);
      }
    }
  }

  #entered(row: number, changed: number): void {
    this.#stock.entered(row, changed);
    if (changed === CHANGED_ALL) {
      this.#rowsById = undefined;
    }
    if ((changed & CHANGED.text) !== 0) {
      this.#text.update(row);
    }
    for (const { index, movedBy, isBuilt } of this.#indexes) {
      if (isBuilt && (changed & movedBy) !== 0) {
        index.insert(row);
      }
    }
  }
}

/** The least and the greatest number of the order that the filter lets through: a walk need not leave them. */
function boundsOf(
  order: ListOrder,
  { inStockOnly, minPrice, maxPrice }: Filter,
): [low: number, high: number] {
  if (order === "price") {
    return [minPrice, maxPrice];
  }
  return [order === "available" && inStockOnly ? Number.MIN_VALUE : 0, Number.POSITIVE_INFINITY];
}
