import { z } from "zod";
import {
  committedLines,
  RESERVATION_STATES,
  type Reservation,
  type ReservationState,
} from "../inventory/reservation.ts";

const Line = z.tuple([z.string(), z.int().min(0), z.int().min(1)]);

const fields = {
  state: z.enum(RESERVATION_STATES),
  created: z.int(),
  ended: z.int().optional(),
  left: z.array(z.int().min(0)).optional(),
  revived: z.boolean().default(false),
};

/** A reservation as scripts/reservation.lua writes it, which checks the same in `is_reservation`. */
const ReservationRecord = z.union([
  z.object({
    ...fields,
    lines: z.array(Line).min(1).refine(areOfDifferentProducts, "a product has two lines"),
    expires: z.int(),
  }),
  // An ID that was released before it was reserved.
  z.object({
    ...fields,
    state: z.literal("released"),
    lines: z.never().optional(),
    expires: z.never().optional(),
  }),
]);

function areOfDifferentProducts(lines: readonly z.infer<typeof Line>[]): boolean {
  return new Set(lines.map(([productId]) => productId)).size === lines.length;
}

/** Throws if the text is not a record of the script: a bug, or a foreign key. */
export function decodeReservation(reservationId: string, text: string): Reservation {
  const record = ReservationRecord.parse(JSON.parse(text));
  const lines = (record.lines ?? []).map(([productId, , quantity]) => ({ productId, quantity }));
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
