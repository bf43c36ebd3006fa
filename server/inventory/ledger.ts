/** The largest quantity there is: units are int32 on the wire. */
export const QUANTITY_MAX = 2_147_483_647;

/** How far a seller's update may lie ahead of the store's clock before it is refused as bad input. */
export const UPDATE_AHEAD_MS_MAX = 5 * 60_000;

/**
 * A product's five numbers, each with one kind of writer, in units. They are never clamped here;
 * only what is derived for a reader is. Safe integers, so that sums of int32 inputs stay exact.
 */
export interface Ledger {
  readonly productId: string;
  /** D: what the seller last declared as supplied. */
  readonly declared: number;
  /** U: the seller's time of that declaration, µs since 1970; 0 where a plain key was adopted; absent before any. */
  readonly declareTimeMicros: number | undefined;
  /** A: the sum of corrections by counts and adjustments. */
  readonly adjusted: number;
  /** S: committed, less returned. */
  readonly sold: number;
  /** H: held by active reservations. */
  readonly reserved: number;
  /** F: kept back from shoppers. */
  readonly safety: number;
  /** Grows by one with each change that a reader can see; 1 at first. */
  readonly version: number;
  readonly deleted: boolean;
}

/** Units that physically are there: D + A - S. Negative where a seller declared less than was sold. */
export function onHand(ledger: Pick<Ledger, "declared" | "adjusted" | "sold">): number {
  return ledger.declared + ledger.adjusted - ledger.sold;
}

/** Units that can still be bought: what shoppers see and Reserve checks. Never negative. */
export function available(
  ledger: Pick<Ledger, "declared" | "adjusted" | "sold" | "reserved" | "safety">,
): number {
  return Math.max(0, onHand(ledger) - ledger.reserved - ledger.safety);
}

/** Units promised that are not there: max(0, H - on hand). */
export function shortfall(ledger: Pick<Ledger, "declared" | "adjusted" | "sold" | "reserved">): number {
  return Math.max(0, ledger.reserved - onHand(ledger));
}

/** What a seller says of a product besides its stock. Replaced as a whole, never field by field. */
export interface ProductDetails {
  readonly name: string;
  readonly description: string;
  /** In the shop's one currency; finite, 0 or more. */
  readonly price: number;
  /** Empty where the product is in no collection. */
  readonly collectionId: string;
}

/** A product's stock as a shopper sees it. */
export interface Stock {
  readonly productId: string;
  readonly available: number;
  readonly version: number;
  /** The store's time of the latest change, ms since 1970. */
  readonly updateTimeMs: number;
  /** Absent until a seller has sent details. */
  readonly details: ProductDetails | undefined;
}

/** Why a product changed. The words are those of the change stream in Redis. */
export const CHANGE_CAUSES = [
  "declared",
  "deleted",
  "counted",
  "adjusted",
  "reserved",
  "committed",
  "released",
  "expired",
  "returned",
  "safety",
  "details",
] as const;
export type ChangeCause = (typeof CHANGE_CAUSES)[number];

/** One change of one product, as the step that made it recorded it. */
export interface StockChange {
  readonly cause: ChangeCause;
  /** Change of `available`. */
  readonly delta: number;
  /** The ledger after the change; its version is the change's version. */
  readonly ledger: Ledger;
  /** The store's clock, ms since 1970. */
  readonly changeTimeMs: number;
  /** The reservation, adjustment, count or return behind it; empty for a seller's update. */
  readonly referenceId: string;
  readonly reason: string;
  /** The details after the change, where it changed them or made the product visible (again). */
  readonly details: ProductDetails | undefined;
}
