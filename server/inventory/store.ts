import type { Collection, CollectionEvent } from "./collection.ts";
import type { Ledger, Stock, StockChange } from "./ledger.ts";
import type { ProductDelete, ProductUpsert, PutResult } from "./product-event.ts";
import type { Line, Reservation } from "./reservation.ts";

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

/** Units to hold. `lines` has one line a product (`sumLines`). */
export interface ReserveRequest {
  readonly reservationId: string;
  readonly lines: readonly Line[];
  readonly ttlMs: number;
}

/** What was sold of a reservation. */
export interface CommitRequest {
  readonly reservationId: string;
  /** One line a product; all that is held where left out or empty. */
  readonly lines: readonly Line[] | undefined;
  /** Refuse an expired reservation even where stock remains. */
  readonly strict: boolean;
}

/** Sold units that came back. `lines` has one line a product. */
export interface ReturnRequest {
  readonly reservationId: string;
  readonly returnId: string;
  readonly lines: readonly Line[];
}

/** Which active reservations to list, by deadline and then by ID. */
export interface ReservationsPage {
  readonly limit: number;
  /** Only those after this one. */
  readonly after: { readonly expireTimeMs: number; readonly reservationId: string } | undefined;
  /** Only those that expire before this time, ms since 1970. */
  readonly expireBeforeMs: number | undefined;
}

/**
 * Holds on stock, two-phase: reserve, then commit or release. Every method may be repeated with
 * the same request: it answers as it did, or with the reservation as it now is. A refusal writes
 * nothing. The model is that of two-phase transfers in TigerBeetle
 * (https://docs.tigerbeetle.com/coding/two-phase-transfers/).
 *
 * Besides the codes named, every method rejects with those that `InventoryStore` names.
 */
export interface ReservationStore {
  /**
   * Holds all lines or none. `PRODUCT_UNKNOWN`; `STOCK_SHORT`; `ID_REUSED` if the ID stands for
   * other lines; `RESERVATION_ENDED` if the ID was released before it was ever reserved.
   */
  reserve(request: ReserveRequest): Promise<Reservation>;

  /**
   * Turns held units into sold ones, and gives the rest back. After expiry the units are acquired
   * again if they are available. `RESERVATION_UNKNOWN`; `RESERVATION_ENDED` after release, or after
   * expiry if `strict`; `STOCK_SHORT` after expiry; `INVALID_INPUT` for more than is held;
   * `ID_REUSED` if it was committed with other quantities.
   */
  commit(request: CommitRequest): Promise<Reservation>;

  /** Gives held units back. An unknown ID is remembered as released. `RESERVATION_ENDED` after a commit. */
  release(reservationId: string): Promise<Reservation>;

  /** Moves the deadline to `ttlMs` from now. `RESERVATION_UNKNOWN`; `RESERVATION_ENDED` unless it is active. */
  extend(reservationId: string, ttlMs: number): Promise<Reservation>;

  /**
   * Puts sold units back on hand. `RESERVATION_UNKNOWN`; `RESERVATION_ENDED` unless it is
   * committed; `RETURN_TOO_LARGE`; `INVALID_INPUT` for a product that is not in it; `ID_REUSED`.
   */
  return(request: ReturnRequest): Promise<Reservation>;

  /** `RESERVATION_UNKNOWN`. */
  get(reservationId: string): Promise<Reservation>;

  /** Active reservations, the next to expire first. */
  list(page: ReservationsPage): Promise<Reservation[]>;

  /** How many are active. */
  countActive(): Promise<number>;

  /** Expires up to `limit` reservations whose deadline has passed; resolves with how many it did. */
  expireDue(limit: number): Promise<number>;
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
  readonly reservations: ReservationStore;

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

  /** Creates, updates or deletes a collection. True where no newer event stands over it. `INVALID_INPUT` if U is too far ahead. */
  putCollection(event: CollectionEvent): Promise<boolean>;

  /** Every collection, in no order. */
  listCollections(): Promise<Collection[]>;

  /** Why the store cannot serve right now, or `undefined` if it can. Never rejects. */
  unreadyReason(): Promise<string | undefined>;

  /** Ends connections and timers. Calls under way reject with `STORE_UNAVAILABLE`. */
  close(): Promise<void>;
}
