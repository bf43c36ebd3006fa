/** The largest quantity: units are int32 on the wire. `quantity_max` in redis/scripts/context.lua. */
export const QUANTITY_MAX = 2_147_483_647;

/** How far a seller's update may be ahead of the store's clock before it is rejected as invalid. */
export const UPDATE_AHEAD_MS_MAX = 5 * 60_000;

/**
 * A product's five numbers, each with one kind of writer, in units. They are never clamped here;
 * only derived numbers are. Safe integers, so that sums of int32 inputs stay exact.
 */
export interface Ledger {
  readonly productId: string;
  /** D: units supplied in total, as last declared by the seller. */
  readonly declared: number;
  /** U: the seller's time of that declaration, µs since 1970. 0 for an adopted plain key; absent before any declaration. */
  readonly declareTimeMicros: number | undefined;
  /** A: the sum of corrections by counts and adjustments. */
  readonly adjusted: number;
  /** S: units committed, less units returned. */
  readonly sold: number;
  /** H: units held by active reservations. */
  readonly reserved: number;
  /** F: units withheld from sale. */
  readonly safety: number;
  /** Increases by one with each change that is visible to readers. The first version is 1. */
  readonly version: number;
  readonly deleted: boolean;
}

/** Units in stock: D + A - S. Negative if a seller declared less than was sold. */
export function onHand(ledger: Pick<Ledger, "declared" | "adjusted" | "sold">): number {
  return ledger.declared + ledger.adjusted - ledger.sold;
}

/** Units that can be bought: what shoppers see and Reserve checks. Never negative. */
export function available(
  ledger: Pick<Ledger, "declared" | "adjusted" | "sold" | "reserved" | "safety">,
): number {
  return Math.max(0, onHand(ledger) - ledger.reserved - ledger.safety);
}

/** Reserved units that are not in stock: max(0, H - on hand). */
export function shortfall(ledger: Pick<Ledger, "declared" | "adjusted" | "sold" | "reserved">): number {
  return Math.max(0, ledger.reserved - onHand(ledger));
}

/**
 * Whether a change takes on hand or the shortfall above the largest quantity. A change back towards the range is allowed.
 * Reserving and committing never do: the first is bounded by what is available, the second leaves the shortfall as it is.
 */
export function leavesRange(before: Ledger, after: Ledger): boolean {
  return (
    (onHand(after) > QUANTITY_MAX && onHand(after) > onHand(before)) ||
    (shortfall(after) > QUANTITY_MAX && shortfall(after) > shortfall(before))
  );
}

/** A product's details, as its seller describes it. Replaced as a whole, never merged. */
export interface ProductDetails {
  readonly name: string;
  readonly description: string;
  /** In the shop's one currency; finite, 0 or more. */
  readonly price: number;
  /** Empty if the product is in no collection. */
  readonly collectionId: string;
}

/** The stock of one product, as shoppers see it. */
export interface Stock {
  readonly productId: string;
  readonly available: number;
  readonly version: number;
  /** The store's time of the latest change, ms since 1970. */
  readonly updateTimeMs: number;
  /** Absent until a seller has sent details. */
  readonly details: ProductDetails | undefined;
}

/** Why a product changed. The change stream in Redis uses the same words. */
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

/** One change of one product, as recorded by the step that made it. */
export interface StockChange {
  readonly cause: ChangeCause;
  /** Change of `available`. */
  readonly delta: number;
  /** The ledger after the change; its version is the change's version. */
  readonly ledger: Ledger;
  /** The store's clock, ms since 1970. */
  readonly changeTimeMs: number;
  /** The ID of the reservation, adjustment, count or return that caused the change. Empty for a seller's update. */
  readonly referenceId: string;
  readonly reason: string;
  /** Who caused the change (`actor.ts`). Empty if unknown. */
  readonly actor: string;
  /** The details after the change. Present if the change modified them or made the product visible. */
  readonly details: ProductDetails | undefined;
}
