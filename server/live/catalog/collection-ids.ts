import { CHANGED, type ProductTable, type RowObserver } from "../products/product-table.ts";
import { compareNames } from "../products/text-order.ts";
import type { CollectionOrder } from "./product-orders.ts";

/** The collections that have a visible product, whether or not sellers have named them. */
export class CollectionIds implements RowObserver {
  readonly #table: ProductTable;
  readonly #order: CollectionOrder;
  /** Computed when it is read. Dropped when a collection may have got its first or lost its last visible product. */
  #ids: readonly string[] | undefined;

  constructor(table: ProductTable, order: CollectionOrder) {
    this.#table = table;
    this.#order = order;
    table.observe(this);
  }

  /** The IDs in natural order. `build` builds the order of collections if it is missing. */
  read(build: () => void): readonly string[] {
    if (this.#ids === undefined) {
      build();
      this.#ids = this.#table
        .collectionNumbers()
        .filter((number) => this.#order.range(number, 0, Number.POSITIVE_INFINITY).size > 0)
        .map((number) => this.#table.collectionId(number))
        .sort(compareNames);
    }
    return this.#ids;
  }

  beforeChange(_row: number, changed: number): void {
    if ((changed & CHANGED.collection) !== 0) {
      this.#ids = undefined;
    }
  }

  afterChange(row: number, changed: number): void {
    this.beforeChange(row, changed);
  }
}
