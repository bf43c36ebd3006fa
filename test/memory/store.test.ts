import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { InventoryError } from "../../server/inventory/errors.ts";
import type { Ledger, StockChange } from "../../server/inventory/ledger.ts";
import type { ProductUpsert, PutResult } from "../../server/inventory/product-event.ts";
import type { ChangesPage, StockAdjustment, StockCount } from "../../server/inventory/store.ts";
import { MemoryStore } from "../../server/memory/store.ts";
import { describeBulkContract } from "../inventory/bulk-contract.ts";
import { describeHistoryContract } from "../inventory/history-contract.ts";
import { describeReservationContract } from "../inventory/reservation-contract.ts";
import {
  describeStoreContract,
  type StoreSettings,
  type StoreUnderTest,
} from "../inventory/store-contract.ts";
import { assertStoresAgree } from "../inventory/stores-agree.ts";

async function storeWithClock(settings: StoreSettings = {}): Promise<StoreUnderTest> {
  let fixedMs: number | undefined;
  const store = new MemoryStore({ ...settings, now: () => fixedMs ?? Date.now() });
  return {
    store,
    setClock: (nowMs) => {
      fixedMs = nowMs;
    },
    close: () => store.close(),
  };
}

describeStoreContract("MemoryStore", storeWithClock);
describeReservationContract("MemoryStore", storeWithClock);
describeBulkContract("MemoryStore", storeWithClock);
describeHistoryContract("MemoryStore", storeWithClock);

class LosesAnAdjustment extends MemoryStore {
  override async adjustStock(adjustment: StockAdjustment): Promise<Ledger> {
    if (adjustment.delta !== 3) {
      return super.adjustStock(adjustment);
    }
    await this.getStock(adjustment.productId);
    return this.getLedger(adjustment.productId);
  }
}

class ForgetsTheReason extends MemoryStore {
  override async listChanges(productId: string, page: ChangesPage): Promise<StockChange[]> {
    return (await super.listChanges(productId, page)).map((change) => ({ ...change, reason: "" }));
  }
}

class RoundsTheTime extends MemoryStore {
  override putProduct(event: ProductUpsert): Promise<PutResult> {
    const { updateTimeMicros: at } = event;
    return super.putProduct({ ...event, updateTimeMicros: at && Math.floor(at / 1000) * 1000 });
  }
}

class HasOtherMessages extends MemoryStore {
  override async countStock(count: StockCount): Promise<Ledger> {
    return super.countStock(count).catch((error: InventoryError) => {
      throw new InventoryError(error.code, error.code === "VERSION_MISMATCH" ? "conflict" : error.message);
    });
  }
}

describe("the comparison of stores", () => {
  // A fixed seed makes the detection of a difference deterministic.
  const options = { seed: 20_260_801, programs: 200 };

  it("finds no difference between two equal stores", async () => {
    await assertStoresAgree(new MemoryStore(), options);
  });

  for (const Faulty of [LosesAnAdjustment, ForgetsTheReason, RoundsTheTime, HasOtherMessages]) {
    it(`detects ${Faulty.name}`, async () => {
      await assert.rejects(assertStoresAgree(new Faulty(), options), (failure: Error) => {
        assert.match(String(failure.cause), /has different results/);
        return true;
      });
    });
  }
});
