import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type Reservation as ReservationMessage,
  ReservationSchema,
  ReservationState as ReservationStateMessage,
} from "../../gen/inventory/v1/reservation_pb.ts";
import { type Stock as StockMessage, StockSchema } from "../../gen/inventory/v1/stock_pb.ts";
import { type InventoryResponse, InventoryResponseSchema } from "../../gen/inventory_pb.ts";
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

const stocks = new WeakMap<Stock, StockMessage>();
const stocksWithoutDetails = new WeakMap<Stock, StockMessage>();

/** A state as a message. It is the same one whenever it is the same state, so that it is made and encoded once; not to be changed. */
export function toStock(stock: Stock): StockMessage {
  return madeOnce(stocks, stock, (product) =>
    create(StockSchema, {
      ...fieldsOf(product),
      ...(product.details && { product: { ...product.details } }),
    }),
  );
}

/** The same without what the seller says of the product. */
export function toStockWithoutDetails(stock: Stock): StockMessage {
  return madeOnce(stocksWithoutDetails, stock, (product) => create(StockSchema, fieldsOf(product)));
}

const counts = new WeakMap<Stock, InventoryResponse>();

/** The same as the Go service told it. */
export function toCount(stock: Stock): InventoryResponse {
  return madeOnce(counts, stock, ({ available }) =>
    create(InventoryResponseSchema, { count: String(available) }),
  );
}

function fieldsOf(stock: Stock) {
  return {
    productId: stock.productId,
    available: toInt32(stock.available),
    version: BigInt(stock.version),
    updateTime: timestampFromMs(stock.updateTimeMs),
  };
}

function madeOnce<From extends object, To>(
  made: WeakMap<From, To>,
  from: From,
  make: (from: From) => To,
): To {
  let to = made.get(from);
  if (to === undefined) {
    to = make(from);
    made.set(from, to);
  }
  return to;
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
