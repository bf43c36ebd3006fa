import { timestampMs } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import {
  ListOrder,
  type Stock,
  StockService,
  type WatchStockResponse,
} from "../../gen/inventory/v1/stock_pb.ts";
import { inChunks } from "../live/chunks.ts";
import { STALE_HEADER, type WatchMessage } from "../live/watch-message.ts";
import { type PageQuery, SORTS } from "../view/list-query.ts";
import type { Product } from "../view/product.ts";

const LIST_MS_MAX = 8_000;

const ORDERS = {
  name: ListOrder.NAME,
  price: ListOrder.PRICE,
  available: ListOrder.AVAILABLE,
  update_time: ListOrder.UPDATE_TIME,
} as const;

export interface ProductList {
  readonly products: readonly Product[];
  readonly total: number;
  readonly serverTimeMs: number;
  readonly isStale: boolean;
}

/** The page's client: watches over gRPC-Web, reads by Connect GET, which caches may answer. */
export class StockClient {
  readonly #streams;
  readonly #reads;

  constructor(baseUrl: string) {
    this.#streams = createClient(StockService, createGrpcWebTransport({ baseUrl }));
    this.#reads = createClient(StockService, createConnectTransport({ baseUrl, useHttpGet: true }));
  }

  async *watch(productIds: readonly string[], signal: AbortSignal): AsyncIterable<WatchMessage<Product>> {
    for await (const message of this.#streams.watchStock({ productIds: [...productIds] }, { signal })) {
      yield toWatchMessage(message);
    }
  }

  /** Reads the same products once. */
  async poll(productIds: readonly string[], signal: AbortSignal): Promise<WatchMessage<Product>> {
    const seen = { serverTimeMs: 0, isStale: false };
    const responses = await Promise.all(
      inChunks(productIds).map((chunk) =>
        this.#reads.batchGetStock(
          { productIds: chunk },
          { signal, onHeader: (headers) => Object.assign(seen, readHeaders(headers)) },
        ),
      ),
    );
    return {
      ...seen,
      stocks: responses.flatMap((response) => response.stocks.map(toProduct)),
      removed: responses.flatMap((response) => response.unknownProductIds),
      isSnapshot: true,
      reconnectAfterMs: undefined,
    };
  }

  async list(query: PageQuery, signal: AbortSignal): Promise<ProductList> {
    const seen = { serverTimeMs: 0, isStale: false };
    const { order, descending } = SORTS[query.sort];
    const response = await this.#reads.listStock(
      {
        pageSize: query.shown,
        query: query.words,
        inStockOnly: query.inStockOnly,
        collectionId: query.collectionId,
        ...(query.minPrice !== undefined && { minPrice: query.minPrice }),
        ...(query.maxPrice !== undefined && { maxPrice: query.maxPrice }),
        order: ORDERS[order],
        descending,
      },
      {
        // Connect would send its own timeout as a header, which makes a GET uncacheable.
        signal: AbortSignal.any([signal, AbortSignal.timeout(LIST_MS_MAX)]),
        onHeader: (headers) => Object.assign(seen, readHeaders(headers)),
      },
    );
    return { ...seen, products: response.stocks.map(toProduct), total: response.totalSize };
  }
}

function readHeaders(headers: Headers): { serverTimeMs: number; isStale: boolean } {
  const date = Date.parse(headers.get("date") ?? "");
  return { serverTimeMs: Number.isNaN(date) ? 0 : date, isStale: headers.has(STALE_HEADER) };
}

function toWatchMessage(message: WatchStockResponse): WatchMessage<Product> {
  const { reconnectAfter, serverTime } = message;
  return {
    stocks: message.stocks.map(toProduct),
    removed: message.removedProductIds,
    isSnapshot: message.snapshot,
    serverTimeMs: serverTime ? timestampMs(serverTime) : 0,
    reconnectAfterMs: reconnectAfter && Number(reconnectAfter.seconds) * 1_000 + reconnectAfter.nanos / 1e6,
    isStale: message.stale,
  };
}

function toProduct(stock: Stock): Product {
  const { product } = stock;
  return {
    productId: stock.productId,
    available: stock.available,
    version: Number(stock.version),
    updateTimeMs: stock.updateTime ? timestampMs(stock.updateTime) : 0,
    ...(product && {
      details: {
        name: product.name ?? "",
        description: product.description,
        price: product.price ?? 0,
        collectionId: product.collectionId,
      },
    }),
  };
}
