import { fingerprint } from "./operation.ts";

/** How long units are held by default. A checkout with a card takes minutes. */
export const RESERVATION_TTL_MS_DEFAULT = 10 * 60_000;
export const RESERVATION_TTL_MS_MIN = 1_000;
export const RESERVATION_TTL_MS_MAX = 4 * 3_600_000;
export const RESERVATION_LINES_MAX = 100;

/**
 * `active` becomes `committed`, `released` or `expired`. An expired reservation may still become
 * `committed` by a late commit, or `released` by a late release. After that release a late commit is rejected.
 */
export const RESERVATION_STATES = ["active", "committed", "released", "expired"] as const;
export type ReservationState = (typeof RESERVATION_STATES)[number];

/** Orders reservations with equal deadlines: by the UTF-8 bytes of their IDs, as a sorted set of Redis does. */
export function compareIds(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/** Units of one product. */
export interface Line {
  readonly productId: string;
  readonly quantity: number;
}

/** The units held for one order. Times are ms since 1970 by the store's clock. */
export interface Reservation {
  readonly reservationId: string;
  readonly state: ReservationState;
  /** One line per product, in order of first occurrence. Empty if an unknown ID was released. */
  readonly lines: readonly Line[];
  /** The units sold per line, 0 included, if that is not all of `lines`; otherwise empty. */
  readonly committedLines: readonly Line[];
  readonly createTimeMs: number;
  /** Absent if an unknown ID was released. */
  readonly expireTimeMs: number | undefined;
  readonly endTimeMs: number | undefined;
  /** True if it had expired and a commit re-acquired its units. */
  readonly revived: boolean;
}

/** A place in the order of the active reservations: by deadline, then by ID. */
export interface ReservationPosition {
  /** ms since 1970. */
  readonly expireTimeMs: number;
  readonly reservationId: string;
}

/** The position of an active reservation. */
export function positionOf({ reservationId, expireTimeMs }: Reservation): ReservationPosition {
  return { reservationId, expireTimeMs: expireTimeMs ?? 0 };
}

/** A reservation that a sweep has expired, with the units that returned to stock. */
export type ExpiredReservation = Pick<Reservation, "reservationId" | "lines">;

/** Sums the lines of each product, in order of first occurrence. */
export function sumLines(lines: readonly Line[]): Line[] {
  if (lines.length === 1) {
    return [...lines];
  }
  const quantities = new Map<string, number>();
  for (const { productId, quantity } of lines) {
    quantities.set(productId, (quantities.get(productId) ?? 0) + quantity);
  }
  return [...quantities].map(([productId, quantity]) => ({ productId, quantity }));
}

/** Identifies the requested lines. Their order does not matter. */
export function linesFingerprint(lines: readonly Line[]): string {
  const sorted = sumLines(lines).sort((a, b) => (a.productId < b.productId ? -1 : 1));
  return fingerprint(sorted.flatMap(({ productId, quantity }) => [productId, quantity]));
}

/** Identifies the content of a return. The same for every store, because the data may move from one to another. */
export function returnFingerprint(reservationId: string, lines: readonly Line[]): string {
  return fingerprint([reservationId, linesFingerprint(lines)]);
}

/** The sold units per line, in the form of `Reservation.committedLines`. */
export function committedLines(lines: readonly Line[], sold: readonly number[]): Line[] {
  const isAll = lines.every((line, index) => line.quantity === sold[index]);
  return isAll ? [] : lines.map(({ productId }, index) => ({ productId, quantity: sold[index] ?? 0 }));
}
