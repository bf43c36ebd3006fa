import type { ServiceImpl } from "@connectrpc/connect";
import type { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import type { InventoryStore } from "../inventory/store.ts";
import { toLedger } from "../wire/stock-changed.ts";
import { actorOf } from "./actor.ts";
import { readId } from "./fields.ts";
import { listChanges } from "./list-changes.ts";
import {
  readAdjustStock,
  readCountStock,
  readDeleteProduct,
  readListChanges,
  readPutProduct,
  readSetSafetyStock,
} from "./supply-requests.ts";

export function supplyService(store: InventoryStore): ServiceImpl<typeof SupplyService> {
  return {
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
