import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import type { Inventory } from "../../gen/inventory_pb.ts";
import { STALE_HEADER } from "../http/headers.ts";
import type { Stock } from "../inventory/ledger.ts";
import type { Catalog } from "../live/catalog/catalog.ts";
import type { Mirror } from "../live/mirror.ts";
import type { LiveReads, Read } from "../live/reads.ts";
import type { SoldOutGate } from "../live/sold-out-gate.ts";
import type { Hub } from "../live/watch/hub.ts";
import { updatesOf } from "../live/watch/watch-updates.ts";
import { callIn } from "../rpc/call.ts";
import { readId } from "./fields.ts";
import { toCount, toStock } from "./messages.ts";
import { pageTokenOf, readBatchGetStock, readListStock } from "./stock-requests.ts";
import { openWatch, requireLoaded, toWatchResponse } from "./watch-stock.ts";

/** The sources of shoppers' reads. */
export interface LiveView {
  readonly mirror: Mirror;
  readonly reads: LiveReads;
  readonly catalog: Catalog;
  readonly hub: Hub;
  readonly soldOut: SoldOutGate;
}

/** The service of the Go implementation that this one replaces. */
export function legacyInventory({ reads }: LiveView): ServiceImpl<typeof Inventory> {
  return {
    get(request, context) {
      const respond = (read: Read<Stock>) => toCount(readValue(read, context));
      const read = reads.getStock(readId("id", request.id));
      return read instanceof Promise ? read.then(respond) : respond(read);
    },
  };
}

export function stockService({ mirror, reads, catalog, hub }: LiveView): ServiceImpl<typeof StockService> {
  return {
    getStock(request, context) {
      const respond = (read: Read<Stock>) => ({ stock: toStock(readValue(read, context)) });
      const read = reads.getStock(readId("product_id", request.productId));
      return read instanceof Promise ? read.then(respond) : respond(read);
    },
    async batchGetStock(request, context) {
      const productIds = readBatchGetStock(request);
      const found = readValue(await reads.batchGetStock(productIds), context);
      return {
        stocks: found.filter((stock) => stock !== undefined).map(toStock),
        unknownProductIds: productIds.filter((_, index) => found[index] === undefined),
      };
    },
    async listStock(request, context) {
      const query = readListStock(request);
      requireLoaded(mirror);
      await mirror.caughtUp();
      const page = readValue({ value: catalog.list(query), stale: mirror.isStale }, context);
      return {
        stocks: page.stocks.map(toStock),
        nextPageToken: page.next === undefined ? "" : pageTokenOf(query, page.next),
        totalSize: page.total,
      };
    },
    async listCollections(_request, context) {
      requireLoaded(mirror);
      const collections = readValue(
        { value: mirror.collections, stale: mirror.areCollectionsStale },
        context,
      );
      return { collections: collections.map((collection) => ({ ...collection })) };
    },
    async *watchStock(request, context) {
      const watch = openWatch({ mirror, hub }, request, callIn(context.values).caller);
      context.signal.addEventListener("abort", () => watch.close(), { once: true });
      for await (const update of updatesOf(watch)) {
        yield toWatchResponse(update);
      }
      // The loop also ends when the call is aborted, for example at its deadline.
      context.signal.throwIfAborted();
    },
  };
}

/** The value of a read. Sets the stale header if the read may be out of date. */
function readValue<T>(read: Read<T>, context: HandlerContext): T {
  if (read.stale) {
    context.responseHeader.set(STALE_HEADER, "true");
  }
  return read.value;
}
