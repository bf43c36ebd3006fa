import type { ConnectRouter } from "@connectrpc/connect";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { Inventory } from "../../gen/inventory_pb.ts";
import type { InventoryStore } from "../inventory/store.ts";
import type { Purpose } from "../ops/health.ts";
import type { ImplementedService } from "../rpc/fast-path/methods.ts";
import type { BatchInstruments } from "./batch.ts";
import { reservationService } from "./reservation-service.ts";
import { type LiveView, legacyInventory, stockService } from "./stock-service.ts";
import { supplyService } from "./supply-service.ts";

// The services map requests to calls of the domain and results to responses. They contain no rule of stock.

const READ_SERVICES = [Inventory, StockService] as const;
const WRITE_SERVICES = [SupplyService, ReservationService] as const;

/** The services of this server, besides health and reflection. */
export const INVENTORY_SERVICES = [...READ_SERVICES, ...WRITE_SERVICES] as const;

/** What a server must be ready for to serve a service, by the service's full name. */
export const SERVICE_PURPOSES: ReadonlyMap<string, Purpose> = new Map([
  ...READ_SERVICES.map(({ typeName }) => [typeName, "reads"] as const),
  ...WRITE_SERVICES.map(({ typeName }) => [typeName, "writes"] as const),
]);

export interface InventoryServices {
  register(router: ConnectRouter): void;
  readonly all: readonly ImplementedService[];
}

/** The inventory's services, for Connect's router and for the fast path. Reads use the live view, mutations the store. */
export function inventoryServices(
  store: InventoryStore,
  live: LiveView,
  instruments: BatchInstruments,
): InventoryServices {
  const inventory = legacyInventory(live);
  const stock = stockService(live);
  const supply = supplyService(store, live, instruments);
  const reservation = reservationService(store.reservations, live.soldOut);
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
