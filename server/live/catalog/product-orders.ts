import { CHANGED, type ProductTable } from "../products/product-table.ts";
import {
  type Bytes,
  bytesOf,
  compareBytes,
  compareNatural,
  NaturalKeyWriter,
} from "../products/text-order.ts";
import type { IdRanks } from "./id-ranks.ts";
import { sortByNumber } from "./sort-numbers.ts";
import { sortRows, textKey } from "./sort-rows.ts";
import { type Rows, SortedIndex } from "./sorted-index.ts";

export const LIST_ORDERS = ["name", "price", "available", "update_time"] as const;
export type ListOrder = (typeof LIST_ORDERS)[number];

/** The orders of the catalog: those of shoppers, and by product ID alone. */
export type SortOrder = ListOrder | "product_id";

/** The end of a page: the sort key and the ID of its last product. */
export interface ListCursor {
  readonly key: string | number;
  readonly productId: string;
}

/** The changes that may move a product in an order, as bits of `CHANGED`. */
const MOVED_BY: Readonly<Record<SortOrder, number>> = {
  name: CHANGED.text,
  price: CHANGED.price,
  available: CHANGED.available,
  update_time: CHANGED.updateTime,
  product_id: CHANGED.visibility,
};

/** Products ordered by a key, then by ID. */
export class ProductOrder {
  readonly index: SortedIndex;
  readonly movedBy: number;
  /** The sort key as a number; absent in the order by name. */
  readonly numberOf: ((row: number) => number) | undefined;
  readonly compare: (a: number, b: number) => number;
  readonly compareIds: (a: number, b: number) => number;
  readonly #table: ProductTable;
  #isBuilt = false;

  constructor(table: ProductTable, order: SortOrder, { compare: compareIds }: IdRanks) {
    this.#table = table;
    this.movedBy = MOVED_BY[order];
    const numberOf = numberIn(table, order);
    const compareKeys = numberOf
      ? (a: number, b: number): number => numberOf(a) - numberOf(b)
      : (a: number, b: number): number => compareNatural(table.sortName(a), table.sortName(b));
    this.numberOf = numberOf;
    this.compareIds = compareIds;
    this.compare = (a, b) => (a === b ? 0 : compareKeys(a, b) || compareIds(a, b));
    this.index = new SortedIndex(this.compare);
  }

  /** Whether the index has every product. Only then it must be updated. */
  get isBuilt(): boolean {
    return this.#isBuilt;
  }

  /** The products whose key is in a range, both ends included. */
  range(low: number, high: number): Rows {
    const numberOf = (row: number): number => this.numberOf?.(row) ?? 0;
    return this.index.range(
      (row) => numberOf(row) >= low,
      (row) => numberOf(row) > high,
    );
  }

  cursorOf(row: number): ListCursor {
    const productId = textOf(this.#table.idBytes(row));
    return { key: this.numberOf?.(row) ?? textOf(this.#table.sortName(row)).toLowerCase(), productId };
  }

  /** Compares rows with a cursor in this order. */
  readonly comparerTo = ({ key, productId }: ListCursor): ((row: number) => number) => {
    const table = this.#table;
    const id = bytesOf(productId);
    const compareIds = (row: number): number => compareBytes(table.idBytes(row), id);
    if (typeof key === "string") {
      const name = bytesOf(key);
      return (row) => compareNatural(table.sortName(row), name) || compareIds(row);
    }
    return (row) => (this.numberOf?.(row) ?? 0) - key || compareIds(row);
  };

  /** Sorts all rows. The input is sorted by ID. */
  build(rowsById: Uint32Array): void {
    this.load(
      this.numberOf === undefined ? sortByName(rowsById, this.#table) : sortByNumber(rowsById, this.numberOf),
    );
  }

  /** Loads all rows; they are in this order already. */
  load(sorted: Uint32Array): void {
    this.index.build(sorted);
    this.#isBuilt = true;
  }
}

function numberIn(table: ProductTable, order: SortOrder): ((row: number) => number) | undefined {
  switch (order) {
    case "name":
      return undefined;
    case "price":
      return (row) => table.price(row);
    case "available":
      return (row) => table.available(row);
    case "update_time":
      return (row) => table.updateTimeMs(row);
    case "product_id":
      return () => 0;
  }
}

/** Products ordered by collection, then by price, then by ID. */
export class CollectionOrder {
  readonly index: SortedIndex;
  readonly movedBy = CHANGED.collection | CHANGED.price;
  readonly #table: ProductTable;
  #isBuilt = false;

  constructor(table: ProductTable, ids: IdRanks) {
    this.#table = table;
    this.index = new SortedIndex(
      (a, b) =>
        table.collection(a) - table.collection(b) || table.price(a) - table.price(b) || ids.compare(a, b),
    );
  }

  /** Whether the index has every product. Only then it must be updated. */
  get isBuilt(): boolean {
    return this.#isBuilt;
  }

  /** The products of a collection in a price range, both ends included. */
  range(collection: number, minPrice: number, maxPrice: number): Rows {
    const table = this.#table;
    const isAfter = (row: number, isInRange: boolean): boolean => {
      const difference = table.collection(row) - collection;
      return difference > 0 || (difference === 0 && isInRange);
    };
    return this.index.range(
      (row) => isAfter(row, table.price(row) >= minPrice),
      (row) => isAfter(row, table.price(row) > maxPrice),
    );
  }

  /** Sorts all rows. The input is sorted by price. */
  build(rowsByPrice: Uint32Array): void {
    this.load(sortByNumber(rowsByPrice, (row) => this.#table.collection(row)));
  }

  /** Loads all rows; they are in this order already. */
  load(sorted: Uint32Array): void {
    this.index.build(sorted);
    this.#isBuilt = true;
  }
}

function sortByName(rowsById: Uint32Array, table: ProductTable): Uint32Array {
  const writer = new NaturalKeyWriter();
  return sortRows(
    rowsById,
    textKey(rowsById, (row) => writer.write(table.sortName(row))),
  );
}

/** The rows of all visible products, sorted by ID. */
export function sortById(table: ProductTable): Uint32Array {
  const rows = Uint32Array.from(table.visibleRows());
  return sortRows(
    rows,
    textKey(rows, (row) => table.idBytes(row)),
  );
}

function textOf({ bytes, start, end }: Bytes): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString("utf8");
}
