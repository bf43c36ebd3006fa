import { commitTooLarge, notInReservation } from "../inventory/refusals.ts";
import {
  committedLines,
  type Line,
  type Reservation,
  type ReservationState,
  sumLines,
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
}

export function deadlineOf(record: ReservationRecord): number {
  return record.expireTimeMs ?? Number.POSITIVE_INFINITY;
}

/** The units that a commit sells, per line. Throws `INVALID_INPUT` for more than is held. */
export function quantitiesToSell(record: ReservationRecord, lines: readonly Line[] | undefined): number[] {
  if (lines === undefined || lines.length === 0) {
    return record.lines.map(({ quantity }) => quantity);
  }
  const sold = record.lines.map(() => 0);
  for (const { productId, quantity } of sumLines(lines)) {
    const index = record.lines.findIndex((line) => line.productId === productId);
    const held = record.lines[index]?.quantity;
    if (held === undefined) {
      throw notInReservation(lines, productId);
    }
    if (quantity > held) {
      throw commitTooLarge(lines, productId, held);
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
