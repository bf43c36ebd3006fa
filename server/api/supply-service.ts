import type { ServiceImpl } from "@connectrpc/connect";
import type { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import type { InventoryStore } from "../inventory/store.ts";
import { toLedger, toStockChanged } from "../wire/stock-changed.ts";
import { type BatchInstruments, batchMethods } from "./batch.ts";
import { collectionMethods } from "./collections.ts";
import { readId } from "./fields.ts";
import { ledgerMethods } from "./ledgers.ts";
import type { LiveView } from "./stock-service.ts";
import {
  readAdjustStock,
  readCountStock,
  readDeleteProduct,
  readListChanges,
  readPutProduct,
  readSetSafetyStock,
  versionToken,
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
      // One more than requested shows whether there is a next page.
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
