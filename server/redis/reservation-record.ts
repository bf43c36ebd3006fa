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

/** Throws if the text is not a record of the script: a bug, or a foreign key. */
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

/** Decodes the state that a script returns with a refusal. */
export function decodeState(text: string): ReservationState {
  return z.enum(RESERVATION_STATES).parse(text);
}
