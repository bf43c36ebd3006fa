import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ListChangesResponseSchema } from "../../gen/inventory/v1/supply_pb.ts";
import { positionOf } from "../inventory/change-history.ts";
import type { StockChange } from "../inventory/ledger.ts";
import type { InventoryStore } from "../inventory/store.ts";
import { toStockChanged } from "../wire/stock-changed.ts";
import { type ChangesRequest, positionToken, versionToken } from "./supply-requests.ts";

type Response = MessageInitShape<typeof ListChangesResponseSchema>;

/** One page of the changes of a product or of a reference. */
export async function listChanges(store: InventoryStore, request: ChangesRequest): Promise<Response> {
  const { limit } = request.page;
  // One more than requested shows whether there is a next page.
  if (request.reference === undefined) {
    const { productId, page } = request;
    const changes = await store.listChanges(productId, { ...page, limit: limit + 1 });
    // Versions start at 1 and have no gaps, so the history is complete if the last page ends with version 1.
    const oldest = changes.at(-1)?.ledger.version ?? page.beforeVersion;
    return pageOf(changes, limit, oldest !== 1, (last) => versionToken(last.ledger.version));
  }
  const { reference, page } = request;
  const { changes, truncated } = await store.findChanges(reference, { ...page, limit: limit + 1 });
  return pageOf(changes, limit, truncated, (last) => positionToken(positionOf(last)));
}

function pageOf(
  changes: readonly StockChange[],
  limit: number,
  truncated: boolean,
  tokenOf: (last: StockChange) => string,
): Response {
  const shown = changes.slice(0, limit);
  const last = shown.at(-1);
  const nextPageToken = changes.length > limit && last ? tokenOf(last) : "";
  return {
    changes: shown.map(toStockChanged),
    nextPageToken,
    truncated: truncated && nextPageToken === "",
  };
}
