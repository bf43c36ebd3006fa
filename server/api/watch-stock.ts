import { create } from "@bufbuild/protobuf";
import { durationFromMs, timestampNow } from "@bufbuild/protobuf/wkt";
import {
  type WatchStockRequest,
  type WatchStockResponse,
  WatchStockResponseSchema,
} from "../../gen/inventory/v1/stock_pb.ts";
import type { Caller } from "../http/caller.ts";
import { externalNetworkOf } from "../http/client-network.ts";
import { InventoryError } from "../inventory/errors.ts";
import type { Mirror } from "../live/mirror.ts";
import type { Hub } from "../live/watch/hub.ts";
import type { Watch } from "../live/watch/watch.ts";
import type { WatchUpdate } from "../live/watch/watch-message.ts";
import { toStock, toStockWithoutDetails } from "./messages.ts";
import { readWatchStock } from "./stock-requests.ts";

// The parts of WatchStock that the Connect path and the fast path share. They differ in how messages are written.

/** Opens the watch of a call. Throws on an invalid request, and until the catalog is loaded. */
export function openWatch(
  { mirror, hub }: { readonly mirror: Mirror; readonly hub: Hub },
  request: WatchStockRequest,
  caller: Caller,
): Watch {
  const watchRequest = readWatchStock(request);
  requireLoaded(mirror, watchRequest.productIds);
  const address = externalNetworkOf(caller.address) ?? caller.address;
  return hub.open(watchRequest, address === caller.address ? caller : { ...caller, address });
}

/**
 * Throws `STORE_UNAVAILABLE` until the catalog is loaded. With IDs also while their part of it is not, since then an unknown
 * product cannot be told from one that was not loaded.
 */
export function requireLoaded(mirror: Mirror, productIds?: Iterable<string>): void {
  if (productIds === undefined ? !mirror.isLoaded : !mirror.hasLoaded(productIds)) {
    throw new InventoryError("STORE_UNAVAILABLE", "The catalog is loading; retry shortly");
  }
}

export function toWatchResponse(update: WatchUpdate): WatchStockResponse {
  const { stocks, withDetails, removed, snapshot, lastOfSnapshot, stale, reconnectAfterMs } = update;
  return create(WatchStockResponseSchema, {
    stocks: stocks.map((state) =>
      withDetails.has(state.productId) ? toStock(state) : toStockWithoutDetails(state),
    ),
    removedProductIds: [...removed],
    snapshot,
    lastOfSnapshot,
    serverTime: timestampNow(),
    stale,
    ...(reconnectAfterMs !== undefined && { reconnectAfter: durationFromMs(reconnectAfterMs) }),
  });
}
