import { z } from "zod";
import {
  committedLines,
  RESERVATION_STATES,
  type Reservation,
  type ReservationState,
} from "../inventory/reservation.ts";

/** A reservation as scripts/reservation.lua writes it. */
const ReservationRecord = z.object({
  state: z.enum(RESERVATION_STATES),
  lines: z.array(z.tuple([z.string(), z.int(), z.int()])).default([]),
  created: z.int(),
  expires: z.int().optional(),
  ended: z.int().optional(),
  left: z.array(z.int()).optional(),
  revived: z.boolean().default(false),
});

/** Throws where the text is not what the script writes: a bug, or somebody else's key. */
export function decodeReservation(reservationId: string, text: string): Reservation {
  const record = ReservationRecord.parse(JSON.parse(text));
  const lines = record.lines.map(([productId, , quantity]) => ({ productId, quantity }));
  return {
    reservationId,
    state: record.state,
    lines,
    committedLines: record.left === undefined ? [] : committedLines(lines, record.left),
    createTimeMs: record.created,
    expireTimeMs: record.expires,
    endTimeMs: record.ended,
    revived: record.revived,
  };
}

/** The state that a script names in a refusal. */
export function readState(word: string): ReservationState {
  return z.enum(RESERVATION_STATES).parse(word);
}
