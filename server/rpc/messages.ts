import { create } from "@bufbuild/protobuf";
import { type Timestamp, TimestampSchema, timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type Reservation as ReservationMessage,
  ReservationSchema,
  ReservationState as ReservationStateMessage,
} from "../../gen/inventory/v1/reservation_pb.ts";
import { type Stock as StockMessage, StockSchema } from "../../gen/inventory/v1/stock_pb.ts";
import {
  ChangeCause as ChangeCauseMessage,
  type Ledger as LedgerMessage,
  LedgerSchema,
  type StockChanged,
  StockChangedSchema,
} from "../../gen/inventory/v1/supply_pb.ts";
import {
  available,
  type ChangeCause,
  type Ledger,
  onHand,
  QUANTITY_MAX,
  type Stock,
  type StockChange,
  shortfall,
} from "../inventory/ledger.ts";

import type { Reservation, ReservationState } from "../inventory/reservation.ts";

// From the domain to the wire. The other way goes through validation, in requests.ts.

const CAUSES: Readonly<Record<ChangeCause, ChangeCauseMessage>> = {
  declared: ChangeCauseMessage.DECLARED,
  deleted: ChangeCauseMessage.DELETED,
  counted: ChangeCauseMessage.COUNTED,
  adjusted: ChangeCauseMessage.ADJUSTED,
  reserved: ChangeCauseMessage.RESERVED,
  committed: ChangeCauseMessage.COMMITTED,
  released: ChangeCauseMessage.RELEASED,
  expired: ChangeCauseMessage.EXPIRED,
  returned: ChangeCauseMessage.RETURNED,
  safety: ChangeCauseMessage.SAFETY,
  details: ChangeCauseMessage.DETAILS,
};

const STATES: Readonly<Record<ReservationState, ReservationStateMessage>> = {
  active: ReservationStateMessage.ACTIVE,
  committed: ReservationStateMessage.COMMITTED,
  released: ReservationStateMessage.RELEASED,
  expired: ReservationStateMessage.EXPIRED,
};

/** The number as int32; a sum of several int32 numbers that lies outside shows as the nearest bound. */
export function toInt32(value: number): number {
  return Math.max(-QUANTITY_MAX - 1, Math.min(QUANTITY_MAX, value));
}

export function toTimestamp(micros: number): Timestamp {
  return create(TimestampSchema, {
    seconds: BigInt(Math.floor(micros / 1_000_000)),
    nanos: (micros % 1_000_000) * 1_000,
  });
}

export function toStock(stock: Stock): StockMessage {
  return create(StockSchema, {
    productId: stock.productId,
    available: toInt32(stock.available),
    version: BigInt(stock.version),
    updateTime: timestampFromMs(stock.updateTimeMs),
    ...(stock.details && { product: { ...stock.details } }),
  });
}

export function toLedger(ledger: Ledger): LedgerMessage {
  return create(LedgerSchema, {
    productId: ledger.productId,
    declared: ledger.declared,
    ...(ledger.declareTimeMicros !== undefined && { declareTime: toTimestamp(ledger.declareTimeMicros) }),
    adjusted: toInt32(ledger.adjusted),
    sold: toInt32(ledger.sold),
    reserved: toInt32(ledger.reserved),
    safety: ledger.safety,
    onHand: toInt32(onHand(ledger)),
    available: toInt32(available(ledger)),
    shortfall: toInt32(shortfall(ledger)),
    version: BigInt(ledger.version),
    deleted: ledger.deleted,
  });
}

export function toStockChanged(change: StockChange): StockChanged {
  return create(StockChangedSchema, {
    productId: change.ledger.productId,
    version: BigInt(change.ledger.version),
    cause: CAUSES[change.cause],
    delta: toInt32(change.delta),
    ledger: toLedger(change.ledger),
    changeTime: timestampFromMs(change.changeTimeMs),
    referenceId: change.referenceId,
    reason: change.reason,
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
