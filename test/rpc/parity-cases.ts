import type { DescMethodUnary, JsonValue } from "@bufbuild/protobuf";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { Inventory } from "../../gen/inventory_pb.ts";

/** One call, as JSON. Both servers get the same calls in the same order, so that their states are equal. */
export interface ParityCase {
  readonly method: DescMethodUnary;
  readonly request: JsonValue;
}

const { get } = Inventory.method;
const { getStock, batchGetStock, listStock, listCollections } = StockService.method;
const supply = SupplyService.method;
const reservation = ReservationService.method;

/** Calls of every unary method, with all kinds of outcomes. `run` makes the IDs of each pass unique. */
export function parityCases(run: string): ParityCase[] {
  const product = `p-${run}`;
  const order = `o-${run}`;
  const lines = [{ productId: product, quantity: 2 }];
  return [
    {
      method: supply.putProduct,
      request: {
        productId: product,
        declared: 10,
        product: { name: "Ärmel – 1 %", price: 2.5 },
        updateTime: "2024-01-01T00:00:00Z",
      },
    },
    {
      method: supply.putProduct,
      request: { productId: product, declared: 9, updateTime: "2023-01-01T00:00:00Z" },
    },
    {
      method: supply.putProduct,
      request: { productId: "", declared: -1, product: { price: -1, name: "x".repeat(600) } },
    },
    { method: supply.putProduct, request: { productId: product, updateTime: "2999-01-01T00:00:00Z" } },
    { method: get, request: { id: product } },
    { method: get, request: { id: "unknown – ünknown" } },
    { method: get, request: {} },
    { method: getStock, request: { productId: product } },
    { method: getStock, request: { productId: "a\u0007" } },
    { method: batchGetStock, request: { productIds: [product, "unknown"] } },
    { method: batchGetStock, request: {} },
    {
      method: batchGetStock,
      request: { productIds: Array.from({ length: 60 }, (_, n) => `a rather long unknown product ${n}`) },
    },
    { method: listStock, request: { pageSize: 5, query: run } },
    { method: listStock, request: { pageSize: -1, pageToken: "x" } },
    { method: listCollections, request: {} },
    {
      method: supply.countStock,
      request: { productId: product, count: 12, countId: `c-${run}`, expectedVersion: "1" },
    },
    {
      method: supply.countStock,
      request: { productId: product, count: 12, countId: `c2-${run}`, expectedVersion: "1" },
    },
    {
      method: supply.adjustStock,
      request: { productId: product, delta: 3, adjustmentId: `a-${run}`, reason: "found: 3, ok" },
    },
    { method: supply.adjustStock, request: { productId: product, delta: 4, adjustmentId: `a-${run}` } },
    { method: supply.adjustStock, request: { productId: product, delta: -1000, adjustmentId: `a2-${run}` } },
    { method: supply.setSafetyStock, request: { productId: product, safety: 1 } },
    { method: supply.getLedger, request: { productId: product } },
    { method: supply.listChanges, request: { productId: product, pageSize: 2 } },
    { method: reservation.reserve, request: { reservationId: order, lines, ttl: "600s" } },
    {
      method: reservation.reserve,
      request: { reservationId: `${order}-short`, lines: [{ productId: product, quantity: 999 }] },
    },
    { method: reservation.reserve, request: { reservationId: order, lines: [], ttl: "0.5s" } },
    { method: reservation.getReservation, request: { reservationId: order } },
    { method: reservation.extendReservation, request: { reservationId: order, ttl: "60s" } },
    {
      method: reservation.commitReservation,
      request: { reservationId: order, lines: [{ productId: product, quantity: 1 }] },
    },
    { method: reservation.releaseReservation, request: { reservationId: order } },
    {
      method: reservation.returnReservation,
      request: { reservationId: order, returnId: `r-${run}`, lines: [{ productId: product, quantity: 1 }] },
    },
    { method: reservation.commitReservation, request: { reservationId: `unknown-${run}` } },
    { method: reservation.listReservations, request: { pageSize: 3 } },
    { method: supply.deleteProduct, request: { productId: product, updateTime: "2025-01-01T00:00:00Z" } },
    { method: getStock, request: { productId: product } },
  ];
}
