import { CHANGED_ALL, type ProductTable } from "../products/product-table.ts";
import { RowSet } from "../products/row-set.ts";
import type { IdRanks } from "./id-ranks.ts";
import { CollectionOrder, ProductOrder } from "./product-orders.ts";

/** The visible products that are in stock. */
export class StockIndex {
  readonly rows = new RowSet();
  /** The same rows in two orders, in which a price range or a collection is counted without visiting each row. */
  readonly byPrice: ProductOrder;
  readonly byCollection: CollectionOrder;
  readonly #table: ProductTable;

  constructor(table: ProductTable, ids: IdRanks) {
    this.#table = table;
    this.byPrice = new ProductOrder(table, "price", ids);
    this.byCollection = new CollectionOrder(table, ids);
  }

  get isBuilt(): boolean {
    return this.byCollection.isBuilt;
  }

  /** Builds both orders from those of all products. */
  build(byPrice: ProductOrder, byCollection: CollectionOrder): void {
    const isInStock = (row: number): boolean => this.rows.has(row);
    this.byPrice.load(byPrice.index.rows().filter(isInStock));
    this.byCollection.load(byCollection.index.rows().filter(isInStock));
  }

  /** See `RowObserver`. A change of the count has an effect only if it reaches or leaves 0. */
  beforeChange(row: number, changed: number): void {
    if (this.isBuilt && this.rows.has(row)) {
      for (const { index, movedBy } of [this.byPrice, this.byCollection]) {
        if ((changed & movedBy) !== 0) {
          index.delete(row);
        }
      }
    }
    if (changed === CHANGED_ALL) {
      this.rows.set(row, false);
    }
  }

  afterChange(row: number, changed: number): void {
    const was = this.rows.has(row);
    const is = this.#table.available(row) > 0;
    this.rows.set(row, is);
    if (!this.isBuilt || !(was || is)) {
      return;
    }
    for (const { index, movedBy } of [this.byPrice, this.byCollection]) {
      const isHere = was && (changed & movedBy) === 0;
      if (is && !isHere) {
        index.insert(row);
      } else if (!is && isHere) {
        index.delete(row);
      }
    }
  }
}
