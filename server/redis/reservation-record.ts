import { z } from "zod";
import { RETURNS_NAMED_MAX, type ReservationTrace } from "../inventory/change-history.ts";
import type { ShortLine } from "../inventory/errors.ts";
import {
  committedLines,
  type Line,
  RESERVATION_STATES,
  type Reservation,
  type ReservationState,
} from "../inventory/reservation.ts";
import type { Keys } from "./keys.ts";
import type { ReplyReader } from "./reply.ts";

const LineRecord = z.tuple([z.string(), z.int().min(0), z.int().min(1)]);

const fields = {
  state: z.enum(RESERVATION_STATES),
  created: z.int(),
  ended: z.int().optional(),
  sold: z.array(z.int().min(0)).optional(),
  left: z.array(z.int().min(0)).optional(),
  returns: z.array(z.string()).default([]),
  revived: z.boolean().default(false),
};

/** A reservation as the scripts write it; scripts/reservation-record.lua checks the same in `is_reservation`. */
const ReservationRecord = z.union([
  z.object({
    ...fields,
    lines: z.array(LineRecord).min(1).refine(areOfDifferentProducts, "a product has two lines"),
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

function areOfDifferentProducts(lines: readonly z.infer<typeof LineRecord>[]): boolean {
  return new Set(lines.map(([productId]) => productId)).size === lines.length;
}

/** Encodes the lines of a record, for scripts/reservation.lua. */
export function encodeLines(lines: readonly Line[], keys: Keys): string {
  return JSON.stringify(
    lines.map(({ productId, quantity }) => [productId, keys.bucketOf(productId), quantity]),
  );
}

/** Decodes the lines of a record, as a script returns them. */
export function decodeLines(text: string): Line[] {
  return z.array(LineRecord).parse(JSON.parse(text)).map(lineOf);
}

function lineOf([productId, , quantity]: z.infer<typeof LineRecord>): Line {
  return { productId, quantity };
}

/** Throws if the text is not a record of the script: a bug, or a foreign key. */
export function decodeReservation(reservationId: string, text: string): Reservation {
  const record = ReservationRecord.parse(JSON.parse(text));
  const lines = (record.lines ?? []).map(lineOf);
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

/** Decodes what a record says about the changes of its reservation. Throws as `decodeReservation`. */
export function decodeTrace(text: string): ReservationTrace {
  const { lines = [], expires, sold = [], left = [], returns } = ReservationRecord.parse(JSON.parse(text));
  // Releases that did not name the returns of a reservation have written records of this layout too.
  const hasReturned = sold.some((quantity, index) => quantity > (left[index] ?? 0));
  return {
    productIds: lines.map(([productId]) => productId),
    expireTimeMs: expires,
    returnIds: returns,
    lacksReturns: returns.length >= RETURNS_NAMED_MAX || (hasReturned && returns.length === 0),
  };
}

/** Whether the text says only that attempts of a reservation were refused, in a Cluster: there is no such reservation. */
export function isRefusal(text: string): boolean {
  return text.startsWith("refused ");
}

/** Decodes the state that a script returns with a refusal. */
export function decodeState(text: string): ReservationState {
  return z.enum(RESERVATION_STATES).parse(text);
}

/** Decodes the rest of a reply `short`: product ID, requested, available and version of each short line. */
export function decodeShortage(reply: ReplyReader): ShortLine[] {
  const lines: ShortLine[] = [];
  for (let productId = reply.optionalText(); productId !== undefined; productId = reply.optionalText()) {
    lines.push({
      productId,
      requested: reply.integer(),
      available: reply.integer(),
      version: reply.integer(),
    });
  }
  return lines;
}
