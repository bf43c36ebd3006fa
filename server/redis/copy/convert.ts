import { z } from "zod";
import { type ChangeKey, CORRECTIONS_NAMED_MAX } from "../../inventory/change-history.ts";
import type { Line, ReservationState } from "../../inventory/reservation.ts";
import type { Keys } from "../keys.ts";
import { decodeReference, encodeReference } from "../reference-record.ts";
import { decodeReservation } from "../reservation-record.ts";

/** The fields of a record that the copy changes or uses. `decodeReservation` has checked them. */
const Record = z.looseObject({
  lines: z.array(z.tuple([z.string(), z.int(), z.int()])).optional(),
  left: z.array(z.int()).optional(),
  print: z.string().optional(),
  returns: z.array(z.string()).optional(),
});

/** What the records are converted for. */
export interface Destination {
  readonly keys: Keys;
  /** Whether the buckets are on several primaries, so that a reservation has a hold in each bucket of its products. */
  readonly isSharded: boolean;
}

/** The record of a reservation at the target. */
export interface ConvertedReservation {
  readonly text: string;
  readonly state: ReservationState;
  readonly lines: readonly Line[];
  readonly returnIds: readonly string[];
  /** The deadline of an active one, ms since 1970. */
  readonly deadlineMs: number | undefined;
  /** By the bucket of its products, the record of what it holds and has sold there. Empty unless sharded. */
  readonly holds: ReadonlyMap<number, string>;
}

/** The epoch of a reservation that was decided at once, and the revision of its first decision (scripts/decisions.lua). */
const FIRST_EPOCH = 1;
const FIRST_REVISION = 0;

/**
 * Gives each line the bucket that its product has at the target. If that is sharded, the record has an epoch besides, and a
 * hold in each bucket of its products (scripts/hold-record.lua). Throws if the text is not a record of the service.
 */
export function convertReservation(
  reservationId: string,
  text: string,
  { keys, isSharded }: Destination,
): ConvertedReservation {
  const { state, lines, expireTimeMs } = decodeReservation(reservationId, text);
  const record = Record.parse(JSON.parse(text));
  const moved = record.lines?.map(
    ([productId, , quantity]) => [productId, keys.bucketOf(productId), quantity] as const,
  );
  const targets = (isSharded ? (moved ?? []) : []).map(([productId, bucket, quantity], index) => ({
    bucket,
    line: [
      productId,
      state === "active" ? quantity : 0,
      state === "committed" ? (record.left?.[index] ?? 0) : 0,
    ] as const,
  }));
  const holds = [...Map.groupBy(targets, ({ bucket }) => bucket)].map(
    ([bucket, ofBucket]): [number, string] => [
      bucket,
      JSON.stringify({
        epoch: FIRST_EPOCH,
        print: record.print,
        revision: FIRST_REVISION,
        lines: ofBucket.map(({ line }) => line),
      }),
    ],
  );
  return {
    text: JSON.stringify({
      ...record,
      ...(moved !== undefined && { lines: moved }),
      ...(isSharded && {
        ...(moved === undefined ? { epoch: 0 } : { epoch: FIRST_EPOCH, attempt: record.print }),
        revision: FIRST_REVISION,
      }),
    }),
    state,
    lines,
    returnIds: record.returns ?? [],
    deadlineMs: state === "active" ? expireTimeMs : undefined,
    holds: new Map(holds),
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
