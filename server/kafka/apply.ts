import type { InventoryStore } from "../inventory/store.ts";
import type { EventOutcome } from "../ops/metrics.ts";
import type { SellerEvent } from "./decode.ts";

/** Applies one event to the store. Rejects as the store's methods do. */
export async function applyEvent(store: InventoryStore, event: SellerEvent): Promise<EventOutcome> {
  switch (event.kind) {
    case "upsert":
      return (await store.putProduct(event.event)).applied ? "applied" : "stale";
    case "delete":
      return (await store.deleteProduct(event.event)).applied ? "applied" : "stale";
    case "collection":
      return (await store.putCollection(event.event)) ? "applied" : "stale";
  }
}
