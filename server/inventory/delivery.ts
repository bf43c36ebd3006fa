/**
 * The place of a message among the messages with the same update time: compared by the timestamp of its record, then by
 * offset, then by partition. Every delivery of one record has the same place, whichever server reads it.
 */
export interface Delivery {
  /** The record's timestamp, ms since 1970, from 0 to 2^53 - 1. */
  readonly timestampMs: number;
  readonly offset: number;
  readonly partition: number;
}

/** Below 0 if `a` precedes `b`. An event without a delivery, such as a call of PutProduct, precedes every delivery. */
export function compareDeliveries(a: Delivery | undefined, b: Delivery | undefined): number {
  if (a === undefined || b === undefined) {
    return Number(a !== undefined) - Number(b !== undefined);
  }
  return a.timestampMs - b.timestampMs || a.offset - b.offset || a.partition - b.partition;
}
