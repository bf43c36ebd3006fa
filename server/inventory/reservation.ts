import { fingerprint } from "./operation.ts";

/** How long units stay held unless the caller says otherwise: a checkout with a card takes minutes. */
export const RESERVATION_TTL_MS_DEFAULT = 10 * 60_000;
export const RESERVATION_TTL_MS_MIN = 1_000;
export const RESERVATION_TTL_MS_MAX = 4 * 3_600_000;
export const RESERVATION_LINES_MAX = 100;

/**
 * `active` becomes `committed`, `released` or `expired`. An expired one may still become
 * `committed` by a late commit, or `released` by a late release, which shuts out the late commit.
 */
export const RESERVATION_STATES = ["active", "committed", "released", "expired"] as const;
export type ReservationState = (typeof RESERVATION_STATES)[number];

/** Units of one product. */
export interface Line {
  readonly productId: string;
  readonly quantity: number;
}

/** Units held for one order. Times are ms since 1970 by the store's clock. */
export interface Reservation {
  readonly reservationId: string;
  readonly state: ReservationState;
  /** One line a product, in the order first named. Empty where an unknown ID was released. */
  readonly lines: readonly Line[];
  /** Line by line what is sold, 0 included, where that is not all of `lines`; else empty. */
  readonly committedLines: readonly Line[];
  readonly createTimeMs: number;
  /** Absent where an unknown ID was released. */
  readonly expireTimeMs: number | undefined;
  readonly endTimeMs: number | undefined;
  /** It had expired, and a commit acquired its units again. */
  readonly revived: boolean;
}

/** Sums the lines of each product, in the order first named. */
export function sumLines(lines: readonly Line[]): Line[] {
  const quantities = new Map<string, number>();
  for (const { productId, quantity } of lines) {
    quantities.set(productId, (quantities.get(productId) ?? 0) + quantity);
  }
  return [...quantities].map(([productId, quantity]) => ({ productId, quantity }));
}

/** Tells requests for other lines apart. The order of the lines does not matter. */
export function linesFingerprint(lines: readonly Line[]): string {
  const sorted = sumLines(lines).sort((a, b) => (a.productId < b.productId ? -1 : 1));
  return fingerprint(sorted.flatMap(({ productId, quantity }) => [productId, quantity]));
}

/** What of a reservation's lines is sold, as `Reservation.committedLines` shows it. */
export function committedLines(lines: readonly Line[], sold: readonly number[]): Line[] {
  const isAll = lines.every((line, index) => line.quantity === sold[index]);
  return isAll ? [] : lines.map(({ productId }, index) => ({ productId, quantity: sold[index] ?? 0 }));
}
