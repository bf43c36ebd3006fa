import type { ProductState } from "../../inventory/feed.ts";
import type { ListCursor, ListOrder } from "./product-orders.ts";

export interface ListQuery {
  /** Words that the name or the ID must contain, all of them, ignoring case and accents. */
  readonly words: string;
  readonly inStockOnly: boolean;
  /** Empty: any collection or none. */
  readonly collectionId: string;
  readonly minPrice: number | undefined;
  readonly maxPrice: number | undefined;
  readonly order: ListOrder;
  readonly descending: boolean;
  readonly limit: number;
  /** Continues after this cursor. It stays valid when products change. */
  readonly after: ListCursor | undefined;
}

export interface ListPage {
  readonly stocks: readonly ProductState[];
  /** Number of products that match. */
  readonly total: number;
  /** The cursor of the next page; absent on the last page. */
  readonly next: ListCursor | undefined;
}
