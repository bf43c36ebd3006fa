import { RedisReservations } from "./reservations.ts";
import { ShardedReservations, type ShardedReservationsOptions } from "./sharded/reservations.ts";

/**
 * How reservations are stored: `together`, each call as one script call over all of its buckets, which only one primary can run;
 * or `sharded`, in steps of one bucket each. Data is written in one of the forms only.
 */
export type ReservationForm = "together" | "sharded";

/** The reservations of a store. */
export function openReservations(
  form: ReservationForm,
  options: ShardedReservationsOptions,
): RedisReservations | ShardedReservations {
  if (form === "sharded") {
    return new ShardedReservations(options);
  }
  const { keys, mutations, plainKeys, primaries, damagedRecords } = options;
  return new RedisReservations(keys, mutations, plainKeys, primaries, damagedRecords);
}
