import { topicActor } from "../../inventory/actor.ts";
import type { Delivery } from "../../inventory/delivery.ts";
import { InventoryError } from "../../inventory/errors.ts";
import type { ProductUpsert } from "../../inventory/product-event.ts";
import type { InventoryStore } from "../../inventory/store.ts";
import type { EventOutcome } from "../../ops/metrics.ts";
import type { Rejection, SellerEvent } from "./decode.ts";
import type { IncomingMessage } from "./message.ts";

/** The result of an event that the store has processed. */
export interface Applied {
  readonly outcome: EventOutcome;
  /** Why a part of the event was not applied. Absent if all of it was. */
  readonly rejected?: Rejection;
}

const APPLIED: Applied = { outcome: "applied" };
const STALE: Applied = { outcome: "stale" };

/** The place of a message among those of the same update time. */
function deliveryOf(message: Pick<IncomingMessage, "timestamp" | "offset" | "partition">): Delivery {
  const timestampMs = Math.min(Math.max(0, Number(message.timestamp)), Number.MAX_SAFE_INTEGER);
  return { timestampMs, offset: Number(message.offset), partition: message.partition };
}

/** Applies one event to the store. Rejects as the store's methods do, if no part of the event can be applied. */
export function applyEvent(
  store: InventoryStore,
  event: SellerEvent,
  message: Pick<IncomingMessage, "topic" | "timestamp" | "offset" | "partition">,
): Promise<Applied> {
  const actor = topicActor(message.topic);
  const delivery = deliveryOf(message);
  switch (event.kind) {
    case "upsert":
      return applyUpsert(store, { ...event.event, delivery, actor }, event.rejected);
    case "delete":
      // Of equal times a deletion wins, whatever the delivery.
      return store.deleteProduct({ ...event.event, actor }).then(appliedOf);
    case "collection":
      return store.putCollection({ ...event.event, delivery }).then(appliedOf);
  }
}

async function applyUpsert(
  store: InventoryStore,
  event: ProductUpsert,
  rejected: Rejection | undefined,
): Promise<Applied> {
  try {
    const result = await store.putProduct(event);
    return rejected === undefined ? appliedOf(result) : { outcome: "partial", rejected };
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

function appliedOf({ changed }: { readonly changed: boolean }): Applied {
  return changed ? APPLIED : STALE;
}
