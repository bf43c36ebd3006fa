import type { ServiceImpl } from "@connectrpc/connect";
import type { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import type { InventoryStore } from "../inventory/store.ts";
import { toLedger } from "../wire/stock-changed.ts";
import { actorOf } from "./actor.ts";
import { type BatchInstruments, batchMethods } from "./batch.ts";
import { collectionMethods } from "./collections.ts";
import { readId } from "./fields.ts";
import { ledgerMethods } from "./ledgers.ts";
import { listChanges } from "./list-changes.ts";
import type { LiveView } from "./stock-service.ts";
import {
  readAdjustStock,
  readCountStock,
  readDeleteProduct,
  readListChanges,
  readPutProduct,
  readSetSafetyStock,
} from "./supply-requests.ts";

export function supplyService(
  store: InventoryStore,
  live: LiveView,
  instruments: BatchInstruments,
): ServiceImpl<typeof SupplyService> {
  return {
    ...batchMethods(store, instruments),
    ...ledgerMethods(store, live),
    ...collectionMethods(store),
    async putProduct(request, context) {
      const { applied, ledger } = await store.putProduct(readPutProduct(request, actorOf(context)));
      return { applied, ledger: toLedger(ledger) };
    },
    async deleteProduct(request, context) {
      const { applied } = await store.deleteProduct(readDeleteProduct(request, actorOf(context)));
      return { applied };
    },
    async countStock(request, context) {
      const count = readCountStock(request, actorOf(context));
      return { ledger: toLedger(await store.countStock(count)) };
    },
    async adjustStock(request, context) {
      const adjustment = readAdjustStock(request, actorOf(context));
      return { ledger: toLedger(await store.adjustStock(adjustment)) };
    },
    async setSafetyStock(request, context) {
      const { productId, safety } = readSetSafetyStock(request);
      return { ledger: toLedger(await store.setSafetyStock(productId, safety, actorOf(context))) };
    },
    async getLedger(request) {
      return { ledger: toLedger(await store.getLedger(readId("product_id", request.productId))) };
    },
    listChanges(request) {
      return listChanges(store, readListChanges(request));
    },
  };
}
