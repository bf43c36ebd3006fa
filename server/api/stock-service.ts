import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import type { Inventory } from "../../gen/inventory_pb.ts";
import { STALE_HEADER } from "../http/headers.ts";
import type { Stock } from "../inventory/ledger.ts";
import type { Catalog } from "../live/catalog/catalog.ts";
import type { Mirror } from "../live/mirror.ts";
import type { LiveReads, Read } from "../live/reads.ts";
import type { Hub } from "../live/watch/hub.ts";
import { updatesOf } from "../live/watch/watch-updates.ts";
import { callIn } from "../rpc/call.ts";
import { readId } from "./fields.ts";
import { toCount, toStock } from "./messages.ts";
import { placeToken, readBatchGetStock, readListStock } from "./stock-requests.ts";
import { openWatch, refuseUntilLoaded, toWatchResponse } from "./watch-stock.ts";

/** What shoppers' reads are answered from. */
export interface LiveView {
  readonly mirror: Mirror;
  readonly reads: LiveReads;
  readonly catalog: Catalog;
  readonly hub: Hub;
}

/** The method of the Go service that this one replaces. */
export function legacyInventory({ reads }: LiveView): ServiceImpl<typeof Inventory> {
  return {
    get(request, context) {
      const answer = (read: Read<Stock>) => toCount(told(read, context));
      const read = reads.getStock(readId("id", request.id));
      return read instanceof Promise ? read.then(answer) : answer(read);
    },
  };
}

export function stockService({ mirror, reads, catalog, hub }: LiveView): ServiceImpl<typeof StockService> {
  return {
    getStock(request, context) {
      const answer = (read: Read<Stock>) => ({ stock: toStock(told(read, context)) });
      const read = reads.getStock(readId("product_id", request.productId));
      return read instanceof Promise ? read.then(answer) : answer(read);
    },
    async batchGetStock(request, context) {
      const productIds = readBatchGetStock(request);
      const found = told(await reads.batchGetStock(productIds), context);
      return {
        stocks: found.filter((stock) => stock !== undefined).map(toStock),
        unknownProductIds: productIds.filter((_, index) => found[index] === undefined),
      };
    },
    async listStock(request, context) {
      const query = readListStock(request);
      refuseUntilLoaded(mirror);
      const page = told({ value: catalog.list(query), stale: mirror.isStale }, context);
      return {
        stocks: page.stocks.map(toStock),
        nextPageToken: page.next === undefined ? "" : placeToken(query, page.next),
        totalSize: page.total,
      };
    },
    async listCollections(_request, context) {
      refuseUntilLoaded(mirror);
      const collections = told({ value: mirror.collections, stale: mirror.isStale }, context);
      return { collections: collections.map((collection) => ({ ...collection })) };
    },
    async *watchStock(request, context) {
      const watch = openWatch({ mirror, hub }, request, callIn(context.values).caller);
      context.signal.addEventListener("abort", () => watch.close(), { once: true });
      for await (const update of updatesOf(watch)) {
        yield toWatchResponse(update);
      }
      // Not the watch has come to its end, but the call: its deadline.
      context.signal.throwIfAborted();
    },
  };
}

function told<T>(read: Read<T>, context: HandlerContext): T {
  if (read.stale) {
    context.responseHeader.set(STALE_HEADER, "true");
  }
  return read.value;
}
