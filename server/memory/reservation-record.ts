import {
  committedLines,
  type Line,
  type Reservation,
  type ReservationState,
} from "../inventory/reservation.ts";

/** A reservation of the memory store. */
export interface ReservationRecord {
  readonly reservationId: string;
  state: ReservationState;
  readonly lines: readonly Line[];
  /** Absent if an unknown ID was released, since its lines are unknown. */
  readonly fingerprint: string | undefined;
  readonly createTimeMs: number;
  expireTimeMs: number | undefined;
  endTimeMs: number | undefined;
  /** Units sold by the commit, per line, and how many of them are not yet returned. */
  sold: readonly number[];
  left: number[];
  /** The IDs of its latest returns, latest last. */
  returnIds: readonly string[];
  revived: boolean;
  /** The attempt that was decided last: its epoch, 0 if an unknown ID was released, and its fingerprint. */
  epoch: number;
  attemptFingerprint: string | undefined;
  /** Number of decisions after the reservation itself that change ledgers. */
  revision: number;
}

export function deadlineOf(record: ReservationRecord): number {
  return record.expireTimeMs ?? Number.POSITIVE_INFINITY;
}

/**
 * The units that a commit sells, per line of the record; without `lines`, all that are held. If a product is to sell more than
 * is held, that product with the units held: 0 if it is not in the reservation. `lines` have one line per product.
 */
export function unitsToSell(
  record: ReservationRecord,
  lines: readonly Line[],
): number[] | { readonly productId: string; readonly held: number } {
  if (lines.length === 0) {
    return record.lines.map(({ quantity }) => quantity);
  }
  const sold = record.lines.map(() => 0);
  for (const { productId, quantity } of lines) {
    const index = record.lines.findIndex((line) => line.productId === productId);
    const held = record.lines[index]?.quantity ?? 0;
    if (quantity > held || index < 0) {
      return { productId, held };
    }
    sold[index] = quantity;
  }
  return sold;
}

export function reservationOf(record: ReservationRecord): Reservation {
  return {
    reservationId: record.reservationId,
    state: record.state,
    lines: record.lines,
    committedLines: record.state === "committed" ? committedLines(record.lines, record.left) : [],
    createTimeMs: record.createTimeMs,
    expireTimeMs: record.expireTimeMs,
    endTimeMs: record.endTimeMs,
    revived: record.revived,
  };
}
