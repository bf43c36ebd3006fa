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

// Mapping from the domain to the wire. The opposite direction includes validation: see *-requests.ts.

const STATES: Readonly<Record<ReservationState, ReservationStateMessage>> = {
  active: ReservationStateMessage.ACTIVE,
  committed: ReservationStateMessage.COMMITTED,
  released: ReservationStateMessage.RELEASED,
  expired: ReservationStateMessage.EXPIRED,
};

const stocks = new WeakMap<Stock, StockMessage>();
const stocksWithoutDetails = new WeakMap<Stock, StockMessage>();

/** A state as a message. The same state gives the same object, so that it is encoded once. Do not modify it. */
export function toStock(stock: Stock): StockMessage {
  return memoize(stocks, stock, (product) =>
    create(StockSchema, {
      ...fieldsOf(product),
      ...(product.details && { product: { ...product.details } }),
    }),
  );
}

/** The same as `toStock`, without the product's details. */
export function toStockWithoutDetails(stock: Stock): StockMessage {
  return memoize(stocksWithoutDetails, stock, (product) => create(StockSchema, fieldsOf(product)));
}

const counts = new WeakMap<Stock, InventoryResponse>();

/** A state as the response of the Go service. */
export function toCount(stock: Stock): InventoryResponse {
  return memoize(counts, stock, ({ available }) =>
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

function memoize<From extends object, To>(
  cache: WeakMap<From, To>,
  from: From,
  convert: (from: From) => To,
): To {
  let to = cache.get(from);
  if (to === undefined) {
    to = convert(from);
    cache.set(from, to);
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
