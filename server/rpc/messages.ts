import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type Reservation as ReservationMessage,
  ReservationSchema,
  ReservationState as ReservationStateMessage,
} from "../../gen/inventory/v1/reservation_pb.ts";
import { type Stock as StockMessage, StockSchema } from "../../gen/inventory/v1/stock_pb.ts";
import type { Stock } from "../inventory/ledger.ts";
import type { Reservation, ReservationState } from "../inventory/reservation.ts";
import { toInt32 } from "../wire/stock-changed.ts";

// From the domain to the wire. The other way goes through validation, in requests.ts.

const STATES: Readonly<Record<ReservationState, ReservationStateMessage>> = {
  active: ReservationStateMessage.ACTIVE,
  committed: ReservationStateMessage.COMMITTED,
  released: ReservationStateMessage.RELEASED,
  expired: ReservationStateMessage.EXPIRED,
};

export function toStock(stock: Stock): StockMessage {
  return create(StockSchema, {
    productId: stock.productId,
    available: toInt32(stock.available),
    version: BigInt(stock.version),
    updateTime: timestampFromMs(stock.updateTimeMs),
    ...(stock.details && { product: { ...stock.details } }),
  });
}

export function toReservation(reservation: Reservation): ReservationMessage {
  const { expireTimeMs, endTimeMs } = reservation;
  return create(ReservationSchema, {
    reservationId: reservation.reservationId,
    state: STATES[reservation.state],
    lines: reservation.lines.map((line) => ({ ...line })),
    committedLines: reservation.committedLines.map((line) => ({ ...line })),
    createTime: timestampFromMs(reservation.createTimeMs),
    ...(expireTimeMs !== undefined && { expireTime: timestampFromMs(expireTimeMs) }),
    ...(endTimeMs !== undefined && { endTime: timestampFromMs(endTimeMs) }),
    revived: reservation.revived,
  });
}
