import type { Acting } from "./actor.ts";
import type { ReferenceChanges, ReferencePage, ReferenceQuery } from "./change-history.ts";
import type { Collection, CollectionEvent, CollectionResult } from "./collection.ts";
import type { Ledger, Stock, StockChange } from "./ledger.ts";
import type { ProductDelete, ProductUpsert, PutResult } from "./product-event.ts";
import type { ExpiredReservation, Line, Reservation, ReservationPosition } from "./reservation.ts";

/** A physical count: on hand becomes `count`. */
export interface StockCount extends Acting {
  readonly productId: string;
  readonly count: number;
  /** Reject unless the product is at this version. Versions are safe integers; an expected one may be any uint64. */
  readonly expectedVersion: bigint | undefined;
  readonly countId: string;
  readonly reason: string;
}

/** Units added or removed: goods received, damaged, lost, found. */
export interface StockAdjustment extends Acting {
  readonly productId: string;
  /** Not 0. */
  readonly delta: number;
  readonly adjustmentId: string;
  readonly reason: string;
}

/** A page of a product's changes, newest first. */
export interface ChangesPage {
  readonly limit: number;
  /** Only changes below this version. */
  readonly beforeVersion: number | undefined;
}

/** The units to hold. Lines with the same product are summed. */
export interface ReserveRequest extends Acting {
  readonly reservationId: string;
  readonly lines: readonly Line[];
  readonly ttlMs: number;
}

/** The units sold of a reservation. */
export interface CommitRequest extends Acting {
  readonly reservationId: string;
  /** Lines with the same product are summed. Absent or empty: all held units. */
  readonly lines: readonly Line[] | undefined;
  /** Reject an expired reservation even if stock remains. */
  readonly strict: boolean;
}

/** Sold units to return to stock. Lines with the same product are summed. */
export interface ReturnRequest extends Acting {
  readonly reservationId: string;
  readonly returnId: string;
  readonly lines: readonly Line[];
}

/** A page of the active reservations, ordered by deadline and then by ID. */
export interface ReservationsPage {
  readonly limit: number;
  /** The position after which the page starts. */
  readonly after: ReservationPosition | undefined;
  /** Only reservations that expire before this time, ms since 1970. */
  readonly expireBeforeMs: number | undefined;
}

/** A page of the reservations of one product. */
export interface ProductReservations {
  readonly reservations: readonly Reservation[];
  /** The position at which the next page starts; absent on the last page. */
  readonly next: ReservationPosition | undefined;
}

/**
 * Two-phase reservations: reserve, then commit or release. Every method may be repeated with the
 * same request: it resolves as before, or with the current state of the reservation. A repeated
 * `extend` counts from its own time, and is rejected if the reservation has ended since. A rejected
 * call writes nothing. The model is that of two-phase transfers in TigerBeetle
 * (https://docs.tigerbeetle.com/coding/two-phase-transfers/).
 *
 * Besides the codes listed with it, every method rejects with those listed at `InventoryStore`.
 */
export interface ReservationStore {
  /**
   * Holds all lines or none. `PRODUCT_UNKNOWN`; `STOCK_SHORT`; `ID_REUSED` if the ID belongs to a
   * reservation with other lines; `RESERVATION_ENDED` if the ID was released before it was reserved.
   */
  reserve(request: ReserveRequest): Promise<Reservation>;

  /**
   * Converts held units to sold ones and returns the rest to stock. After expiry the units are
   * re-acquired if they are available. `RESERVATION_UNKNOWN`; `RESERVATION_ENDED` after release, or
   * after expiry if `strict`; `STOCK_SHORT` after expiry; `INVALID_INPUT` for more than is held;
   * `ID_REUSED` if it was committed with other quantities.
   */
  commit(request: CommitRequest): Promise<Reservation>;

  /** Returns held units to stock. An unknown ID is recorded as released. `RESERVATION_ENDED` after a commit. */
  release(reservationId: string, actor?: string): Promise<Reservation>;

  /** Sets the deadline to `ttlMs` from now. `RESERVATION_UNKNOWN`; `RESERVATION_ENDED` unless it is active. */
  extend(reservationId: string, ttlMs: number): Promise<Reservation>;

  /**
   * Returns sold units to on hand. `RESERVATION_UNKNOWN`; `RESERVATION_ENDED` unless it is
   * committed; `RETURN_TOO_LARGE`; `INVALID_INPUT` for a product that is not in it; `ID_REUSED`;
   * `STOCK_OUT_OF_RANGE` if on hand would rise above the int32 maximum.
   */
  return(request: ReturnRequest): Promise<Reservation>;

  /** Those of the IDs that have a record, readable or damaged. */
  findKnown(reservationIds: readonly string[]): Promise<ReadonlySet<string>>;

  /** `RESERVATION_UNKNOWN`. */
  get(reservationId: string): Promise<Reservation>;

  /** Active reservations, earliest deadline first. */
  list(page: ReservationsPage): Promise<Reservation[]>;

  /**
   * Active reservations with a line of the product, earliest deadline first. One call examines a bounded number of
   * reservations, so that a page may have fewer than `limit`, even none, before the last.
   */
  listOfProduct(productId: string, page: ReservationsPage): Promise<ProductReservations>;

  countActive(): Promise<number>;

  /** Expires up to `limit` reservations whose deadline has passed. Resolves with those that it has expired. */
  expireDue(limit: number): Promise<ExpiredReservation[]>;
}

/**
 * The ledgers of all products. The contract has two implementations: `memory/`, the executable
 * specification, and `redis/`. A mutation and its change record are one atomic step, and an
 * operation ID is checked inside that step, so a caller may repeat a call whose response was lost.
 * Calls without an ID or a time (`setSafetyStock`) set a value, and a repetition sets it again.
 *
 * Every method rejects with an `InventoryError`. Besides the codes listed with each method:
 * `STORE_UNAVAILABLE` within a second if the store does not respond, `OVERLOADED` if too many calls
 * are waiting. Inputs have passed `validation.ts`.
 */
export interface InventoryStore {
  readonly reservations: ReservationStore;

  /** One product as shoppers see it. `PRODUCT_UNKNOWN`. */
  getStock(productId: string): Promise<Stock>;

  /** Many products in request order; `undefined` for an unknown or deleted one. */
  batchGetStock(productIds: readonly string[]): Promise<(Stock | undefined)[]>;

  /** The ledger of a product, also of a deleted one. `PRODUCT_UNKNOWN` if it never existed. */
  getLedger(productId: string): Promise<Ledger>;

  /** The ledgers of many products, also of deleted ones, in request order; `undefined` for an unknown or damaged one. */
  batchGetLedgers(productIds: readonly string[]): Promise<(Ledger | undefined)[]>;

  /** Products with the same number are stored together, so that mutations of them can share one step. */
  bucketOf(productId: string): number;

  /** A product's latest changes, newest first, as many as the store keeps. `PRODUCT_UNKNOWN`. */
  listChanges(productId: string, page: ChangesPage): Promise<StockChange[]>;

  /**
   * The changes of a reservation with its returns, or of a count, adjustment or return: of all its products, or of one.
   * Empty and `truncated` for an ID without a record. `PRODUCT_UNKNOWN` if a product is given that never existed.
   */
  findChanges(query: ReferenceQuery, page: ReferencePage): Promise<ReferenceChanges>;

  /**
   * Creates or updates a product from its seller's declaration. `INVALID_INPUT` if U is too far ahead of the store's
   * clock; `STOCK_OUT_OF_RANGE` if on hand or the shortfall would rise above the int32 maximum.
   */
  putProduct(event: ProductUpsert): Promise<PutResult>;

  /** Removes a product from sale and keeps a tombstone. `INVALID_INPUT` if U is too far ahead. */
  deleteProduct(event: ProductDelete): Promise<PutResult>;

  /**
   * Sets A so that on hand equals the count. `PRODUCT_UNKNOWN`; `VERSION_MISMATCH`; `ID_REUSED`.
   * A repeated call resolves with the current ledger.
   */
  countStock(count: StockCount): Promise<Ledger>;

  /**
   * Adds `delta` to A. `PRODUCT_UNKNOWN`; `ID_REUSED`; `STOCK_OUT_OF_RANGE` if on hand would fall
   * below 0 or rise above the int32 maximum. A repeated call resolves with the current ledger.
   */
  adjustStock(adjustment: StockAdjustment): Promise<Ledger>;

  /** Sets F. `PRODUCT_UNKNOWN`. */
  setSafetyStock(productId: string, safety: number, actor?: string): Promise<Ledger>;

  /** Creates, updates or deletes a collection. `INVALID_INPUT` if U is too far ahead. */
  putCollection(event: CollectionEvent): Promise<CollectionResult>;

  /** Every collection, in no particular order. */
  listCollections(): Promise<Collection[]>;

  /** Why the store cannot serve now, or `undefined` if it can. Never rejects. */
  unreadyReason(): Promise<string | undefined>;

  /** Closes connections and timers. Pending calls reject with `STORE_UNAVAILABLE`. */
  close(): Promise<void>;
}
