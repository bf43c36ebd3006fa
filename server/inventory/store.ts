import type { Ledger, Stock, StockChange } from "./ledger.ts";
import type { ProductDelete, ProductUpsert, PutResult } from "./product-event.ts";

/** A physical count: on hand becomes `count`. */
export interface StockCount {
  readonly productId: string;
  readonly count: number;
  /** Refuse unless the product is at this version. */
  readonly expectedVersion: number | undefined;
  readonly countId: string;
  readonly reason: string;
}

/** Units that came or went: goods received, damaged, lost, found. */
export interface StockAdjustment {
  readonly productId: string;
  /** Not 0. */
  readonly delta: number;
  readonly adjustmentId: string;
  readonly reason: string;
}

/** Which of a product's changes to list, newest first. */
export interface ChangesPage {
  readonly limit: number;
  /** Only changes below this version. */
  readonly beforeVersion: number | undefined;
}

/**
 * Every product's ledger. Two stand behind this contract: `memory/`, which is the specification
 * that runs, and `redis/`. A mutation and its change record are one atomic step, and an operation
 * ID is checked inside that step, so a caller may repeat any call whose answer was lost.
 *
 * Every method rejects with an `InventoryError`, and besides the codes named with each:
 * `STORE_UNAVAILABLE` within a second where the store does not answer, `OVERLOADED` where too many
 * calls wait. Inputs have passed `validation.ts`.
 */
export interface InventoryStore {
  /** One product as shoppers see it. `PRODUCT_UNKNOWN`. */
  getStock(productId: string): Promise<Stock>;

  /** Many products in the order asked for; `undefined` where one is unknown or deleted. */
  batchGetStock(productIds: readonly string[]): Promise<(Stock | undefined)[]>;

  /** How a count comes about; also of a deleted product. `PRODUCT_UNKNOWN` if it never was. */
  getLedger(productId: string): Promise<Ledger>;

  /** A product's latest changes, newest first, as far back as the store keeps them. `PRODUCT_UNKNOWN`. */
  listChanges(productId: string, page: ChangesPage): Promise<StockChange[]>;

  /** Creates or updates from what the seller declares. `INVALID_INPUT` if U is too far ahead of the store's clock. */
  putProduct(event: ProductUpsert): Promise<PutResult>;

  /** Removes from sale, and leaves a tombstone. `INVALID_INPUT` if U is too far ahead. */
  deleteProduct(event: ProductDelete): Promise<PutResult>;

  /**
   * Sets A so that on hand is the count. `PRODUCT_UNKNOWN`; `VERSION_MISMATCH`; `ID_REUSED`.
   * Repeated: the ledger as it now is.
   */
  countStock(count: StockCount): Promise<Ledger>;

  /**
   * Adds `delta` to A. `PRODUCT_UNKNOWN`; `ID_REUSED`; `STOCK_OUT_OF_RANGE` if on hand would fall
   * below 0 or rise above the int32 maximum. Repeated: the ledger as it now is.
   */
  adjustStock(adjustment: StockAdjustment): Promise<Ledger>;

  /** Sets F. `PRODUCT_UNKNOWN`. */
  setSafetyStock(productId: string, safety: number): Promise<Ledger>;

  /** Why the store cannot serve right now, or `undefined` if it can. Never rejects. */
  unreadyReason(): Promise<string | undefined>;

  /** Ends connections and timers. Calls under way reject with `STORE_UNAVAILABLE`. */
  close(): Promise<void>;
}
