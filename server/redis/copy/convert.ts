import { z } from "zod";
import { type ChangeKey, CORRECTIONS_NAMED_MAX } from "../../inventory/change-history.ts";
import type { ReservationState } from "../../inventory/reservation.ts";
import type { Keys } from "../keys.ts";
import { decodeReference, encodeReference } from "../reference-record.ts";
import { decodeReservation } from "../reservation-record.ts";

const Lines = z.array(z.tuple([z.string(), z.int(), z.int()]));
const Record = z.looseObject({ lines: Lines.optional(), expires: z.int().optional() });

/** The record of a reservation at the target. */
export interface ConvertedReservation {
  readonly text: string;
  readonly state: ReservationState;
  readonly lines: readonly { readonly productId: string; readonly quantity: number }[];
  readonly returnIds: readonly string[];
  /** The deadline of an active one, ms since 1970. */
  readonly deadlineMs: number | undefined;
}

/** Gives each line the bucket that its product has at the target. Throws if the text is not a record of the service. */
export function convertReservation(reservationId: string, text: string, keys: Keys): ConvertedReservation {
  const { state, lines, expireTimeMs } = decodeReservation(reservationId, text);
  const record = Record.parse(JSON.parse(text));
  const moved = record.lines?.map(([productId, , quantity]) => [
    productId,
    keys.bucketOf(productId),
    quantity,
  ]);
  const { returns } = record;
  return {
    text: JSON.stringify({ ...record, ...(moved !== undefined && { lines: moved }) }),
    state,
    lines,
    returnIds: Array.isArray(returns) ? returns.map(String) : [],
    deadlineMs: state === "active" ? expireTimeMs : undefined,
  };
}

/**
 * The changes of a reference record by the key at the target: that of the product's bucket. A record without changes belongs
 * to a count that corrected nothing; a look-up reads the records of every bucket, so any bucket serves.
 */
export function convertReference(id: string, text: string, keys: Keys): ReadonlyMap<string, ChangeKey[]> {
  const changes = decodeReference(text);
  return changes.length === 0
    ? new Map([[keys.reference(keys.bucketOf(id), id), []]])
    : Map.groupBy(changes, ({ productId }) => keys.reference(keys.bucketOf(productId), id));
}

/** Adds changes to a record that another bucket of the source has written already. */
export function mergeReference(known: string | undefined, changes: readonly ChangeKey[]): string {
  const all = known === undefined ? [] : decodeReference(known);
  const added = changes.filter(
    ({ productId, version }) => !all.some((each) => each.productId === productId && each.version === version),
  );
  return encodeReference([...all, ...added].slice(-CORRECTIONS_NAMED_MAX));
}
