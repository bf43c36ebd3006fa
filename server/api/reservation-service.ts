import type { ServiceImpl } from "@connectrpc/connect";
import type { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { positionOf } from "../inventory/reservation.ts";
import type { ReservationStore } from "../inventory/store.ts";
import { actorOf } from "./actor.ts";
import { readId } from "./fields.ts";
import { toReservation } from "./messages.ts";
import {
  readCommit,
  readExtend,
  readListReservations,
  readReserve,
  readReturn,
  reservationToken,
} from "./reservation-requests.ts";

/** Reserve goes through the gate of sold-out products, everything else to the store. */
export function reservationService(
  reservations: ReservationStore,
  soldOut: Pick<ReservationStore, "reserve">,
): ServiceImpl<typeof ReservationService> {
  return {
    async reserve(request, context) {
      return {
        reservation: toReservation(await soldOut.reserve(readReserve(request, actorOf(context)))),
      };
    },
    async commitReservation(request, context) {
      return { reservation: toReservation(await reservations.commit(readCommit(request, actorOf(context)))) };
    },
    async releaseReservation(request, context) {
      const reservationId = readId("reservation_id", request.reservationId);
      return { reservation: toReservation(await reservations.release(reservationId, actorOf(context))) };
    },
    async extendReservation(request) {
      const { reservationId, ttlMs } = readExtend(request);
      return { reservation: toReservation(await reservations.extend(reservationId, ttlMs)) };
    },
    async returnReservation(request, context) {
      return { reservation: toReservation(await reservations.return(readReturn(request, actorOf(context)))) };
    },
    async getReservation(request) {
      const reservationId = readId("reservation_id", request.reservationId);
      return { reservation: toReservation(await reservations.get(reservationId)) };
    },
    async listReservations(request) {
      const { productId, ...page } = readListReservations(request);
      if (productId !== "") {
        const { reservations: ofProduct, next } = await reservations.listOfProduct(productId, page);
        return {
          reservations: ofProduct.map(toReservation),
          nextPageToken: next === undefined ? "" : reservationToken(next),
        };
      }
      // One more than requested shows whether there is a next page.
      const found = await reservations.list({ ...page, limit: page.limit + 1 });
      const shown = found.slice(0, page.limit);
      const last = shown.at(-1);
      return {
        reservations: shown.map(toReservation),
        nextPageToken: found.length > page.limit && last ? reservationToken(positionOf(last)) : "",
      };
    },
  };
}
