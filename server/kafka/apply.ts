import { InventoryError } from "../inventory/errors.ts";
import type { InventoryStore } from "../inventory/store.ts";
import type { EventOutcome } from "../ops/metrics.ts";
import type { Rejection, SellerEvent } from "./decode.ts";

/** The result of an event that the store has processed. */
export interface Applied {
  readonly outcome: EventOutcome;
  /** Why a part of the event was not applied. Absent if all of it was. */
  readonly rejected?: Rejection;
}

/** Applies one event to the store. Rejects as the store's methods do, if no part of the event can be applied. */
export async function applyEvent(store: InventoryStore, event: SellerEvent): Promise<Applied> {
  switch (event.kind) {
    case "upsert":
      return applyUpsert(store, event);
    case "delete":
      return { outcome: outcomeOf((await store.deleteProduct(event.event)).applied) };
    case "collection":
      return { outcome: outcomeOf(await store.putCollection(event.event)) };
  }
}

async function applyUpsert(
  store: InventoryStore,
  { event, rejected }: Extract<SellerEvent, { kind: "upsert" }>,
): Promise<Applied> {
  try {
    const { applied } = await store.putProduct(event);
    return rejected === undefined ? { outcome: outcomeOf(applied) } : { outcome: "partial", rejected };
  } catch (error) {
    if (
      !(error instanceof InventoryError && error.code === "STOCK_OUT_OF_RANGE") ||
      event.details === undefined
    ) {
      throw error;
    }
    // The number would take the ledger out of range. The details do not depend on it.
    await store.putProduct({ ...event, declared: undefined });
    return { outcome: "partial", rejected: { reason: "bad-stock", detail: error.message } };
  }
}

function outcomeOf(applied: boolean): EventOutcome {
  return applied ? "applied" : "stale";
}
