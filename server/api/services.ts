import type { ConnectRouter, ServiceImpl } from "@connectrpc/connect";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { Inventory } from "../../gen/inventory_pb.ts";
import type { InventoryStore, ReservationStore } from "../inventory/store.ts";
import { toLedger, toStockChanged } from "../wire/stock-changed.ts";
import type { ImplementedService } from "../rpc/fast-path/methods.ts";
import { toReservation } from "./messages.ts";
import {
  readAdjustStock,
  readCountStock,
  readDeleteProduct,
  readId,
  readListChanges,
  readPutProduct,
  readSetSafetyStock,
  versionToken,
} from "./requests.ts";
import {
  readCommit,
  readExtend,
  readListReservations,
  readReserve,
  readReturn,
  reservationToken,
} from "./reservation-requests.ts";
import { type LiveView, legacyInventory, stockService } from "./stock-service.ts";

// The services: a message in, a call of the domain, a message out. No rule of stock is decided here.

/** Everything that this server answers for, besides health and reflection. */
export const INVENTORY_SERVICES = [Inventory, StockService, SupplyService, ReservationService] as const;

/** The inventory's services, for Connect's router and for the lane: reads on the live view, all else on the store. */
export function inventoryServices(
  store: InventoryStore,
  live: LiveView,
): { register(router: ConnectRouter): void; readonly all: readonly ImplementedService[] } {
  const inventory = legacyInventory(live);
  const stock = stockService(live);
  const supply = supplyService(store);
  const reservation = reservationService(store.reservations);
  return {
    register(router) {
      router.service(Inventory, inventory);
      router.service(StockService, stock);
      router.service(SupplyService, supply);
      router.service(ReservationService, reservation);
    },
    all: [
      { desc: Inventory, implementation: inventory },
      { desc: StockService, implementation: stock },
      { desc: SupplyService, implementation: supply },
      { desc: ReservationService, implementation: reservation },
    ],
  };
}

function supplyService(store: InventoryStore): ServiceImpl<typeof SupplyService> {
  return {
    async putProduct(request) {
      const { applied, ledger } = await store.putProduct(readPutProduct(request));
      return { applied, ledger: toLedger(ledger) };
    },
    async deleteProduct(request) {
      const { applied } = await store.deleteProduct(readDeleteProduct(request));
      return { applied };
    },
    async countStock(request) {
      return { ledger: toLedger(await store.countStock(readCountStock(request))) };
    },
    async adjustStock(request) {
      return { ledger: toLedger(await store.adjustStock(readAdjustStock(request))) };
    },
    async setSafetyStock(request) {
      const { productId, safety } = readSetSafetyStock(request);
      return { ledger: toLedger(await store.setSafetyStock(productId, safety)) };
    },
    async getLedger(request) {
      return { ledger: toLedger(await store.getLedger(readId("product_id", request.productId))) };
    },
    async listChanges(request) {
      const { productId, page } = readListChanges(request);
      // One more than asked for tells whether there is a next page.
      const changes = await store.listChanges(productId, { ...page, limit: page.limit + 1 });
      const shown = changes.slice(0, page.limit);
      const last = shown.at(-1);
      return {
        changes: shown.map(toStockChanged),
        nextPageToken: changes.length > page.limit && last ? versionToken(last.ledger.version) : "",
      };
    },
  };
}

function reservationService(reservations: ReservationStore): ServiceImpl<typeof ReservationService> {
  return {
    async reserve(request) {
      return { reservation: toReservation(await reservations.reserve(readReserve(request))) };
    },
    async commitReservation(request) {
      return { reservation: toReservation(await reservations.commit(readCommit(request))) };
    },
    async releaseReservation(request) {
      const reservationId = readId("reservation_id", request.reservationId);
      return { reservation: toReservation(await reservations.release(reservationId)) };
    },
    async extendReservation(request) {
      const { reservationId, ttlMs } = readExtend(request);
      return { reservation: toReservation(await reservations.extend(reservationId, ttlMs)) };
    },
    async returnReservation(request) {
      return { reservation: toReservation(await reservations.return(readReturn(request))) };
    },
    async getReservation(request) {
      const reservationId = readId("reservation_id", request.reservationId);
      return { reservation: toReservation(await reservations.get(reservationId)) };
    },
    async listReservations(request) {
      const page = readListReservations(request);
      // One more than asked for tells whether there is a next page.
      const found = await reservations.list({ ...page, limit: page.limit + 1 });
      const shown = found.slice(0, page.limit);
      const last = shown.at(-1);
      return {
        reservations: shown.map(toReservation),
        nextPageToken: found.length > page.limit && last ? reservationToken(last) : "",
      };
    },
  };
}
