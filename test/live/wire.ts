import { join } from "node:path";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { durationFromMs, durationMs } from "@bufbuild/protobuf/wkt";
import { type Client, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { credentials, Client as GrpcClient } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import {
  StockService,
  WatchStockRequestSchema,
  type WatchStockResponse,
  WatchStockResponseSchema,
} from "../../gen/inventory/v1/stock_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import type { TestApp } from "../support/app.ts";
import { methodOf } from "../support/grpc-contract.ts";
import { grpcJsTransport } from "../support/grpc-js-transport.ts";

/** A message of a watch, independent of the protocol. */
export interface Received {
  readonly stocks: readonly {
    readonly productId: string;
    readonly available: number;
    readonly version: number;
    readonly name: string | undefined;
  }[];
  readonly removed: readonly string[];
  readonly lastOfSnapshot: boolean;
  readonly stale: boolean;
  readonly reconnectMs: number | undefined;
}

export interface WatchWish {
  readonly productIds?: readonly string[];
  readonly minIntervalMs?: number;
}

export type OpenWatch = (app: TestApp, wish: WatchWish, signal: AbortSignal) => AsyncIterable<Received>;

const contract = loadSync("inventory/v1/stock.proto", {
  includeDirs: [join(import.meta.dirname, "../../proto")],
  longs: Number,
});

/** Native gRPC through grpc-js, which has only the proto. */
async function* watchByGrpcJs(app: TestApp, wish: WatchWish, signal: AbortSignal): AsyncIterable<Received> {
  const method = methodOf(contract, "inventory.v1.StockService/WatchStock");
  const client = new GrpcClient(app.address, credentials.createInsecure());
  const interval = wish.minIntervalMs ?? 0;
  const call = client.makeServerStreamRequest(
    method.path,
    method.requestSerialize,
    // The generated code decodes the bytes: the test compares the wire, not two decoders.
    (bytes) => received(fromBinary(WatchStockResponseSchema, bytes)),
    { productIds: wish.productIds ?? [], minInterval: { seconds: 0, nanos: interval * 1e6 } },
  );
  const cancel = (): void => call.cancel();
  signal.addEventListener("abort", cancel);
  try {
    yield* call as AsyncIterable<Received>;
  } finally {
    signal.removeEventListener("abort", cancel);
    call.cancel();
    client.close();
  }
}

function watchBy(clientOf: (app: TestApp) => Client<typeof StockService>): OpenWatch {
  return async function* (app, wish, signal) {
    const request = {
      productIds: [...(wish.productIds ?? [])],
      minInterval: durationFromMs(wish.minIntervalMs ?? 0),
    };
    for await (const message of clientOf(app).watchStock(request, { signal })) {
      yield received(message);
    }
  };
}

/** Every protocol with which a client can watch. */
export const PROTOCOLS: readonly { readonly name: string; readonly watch: OpenWatch }[] = [
  { name: "native gRPC (grpc-js)", watch: watchByGrpcJs },
  {
    name: "gRPC-Web (connect-web)",
    watch: watchBy((app) => createClient(StockService, createGrpcWebTransport({ baseUrl: app.url }))),
  },
  {
    name: "Connect over HTTP/1.1",
    watch: watchBy((app) =>
      createClient(StockService, createConnectTransport({ baseUrl: app.url, httpVersion: "1.1" })),
    ),
  },
];

export function received(message: WatchStockResponse): Received {
  return {
    stocks: message.stocks.map(({ productId, available, version, product }) => ({
      productId,
      available,
      version: Number(version),
      name: product?.name,
    })),
    removed: message.removedProductIds,
    lastOfSnapshot: message.lastOfSnapshot,
    stale: message.stale,
    reconnectMs: message.reconnectAfter && durationMs(message.reconnectAfter),
  };
}

/** What a page would show: the newest of everything received. */
export class Shown implements AsyncDisposable {
  readonly counts = new Map<string, Received["stocks"][number]>();
  readonly messages: Received[] = [];
  readonly ended: Promise<void>;
  readonly #abort = new AbortController();
  error: unknown;

  constructor(watch: OpenWatch, app: TestApp, wish: WatchWish = {}) {
    this.ended = this.#follow(watch(app, wish, this.#abort.signal));
  }

  get last(): Received | undefined {
    return this.messages.at(-1);
  }

  /** The last message may be a later one, such as a mark that the counts may be out of date. */
  get hasSnapshot(): boolean {
    return this.messages.some(({ lastOfSnapshot }) => lastOfSnapshot);
  }

  version(productId: string): number | undefined {
    return this.counts.get(productId)?.version;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#abort.abort();
    await this.ended;
  }

  async #follow(messages: AsyncIterable<Received>): Promise<void> {
    try {
      for await (const message of messages) {
        this.messages.push(message);
        for (const stock of message.stocks) {
          const before = this.counts.get(stock.productId);
          if (stock.version > (before?.version ?? 0)) {
            this.counts.set(stock.productId, { ...stock, name: stock.name ?? before?.name });
          }
        }
        for (const id of message.removed) {
          this.counts.delete(id);
        }
      }
    } catch (error) {
      this.error = error;
    }
  }
}

/** Clients of every service: watches over one HTTP/2 connection, mutations over another. */
export interface Clients extends AsyncDisposable {
  readonly stock: Client<typeof StockService>;
  readonly supply: Client<typeof SupplyService>;
  readonly reservations: Client<typeof ReservationService>;
}

export function clientsOf(app: { readonly url: string }): Clients {
  const sessionManager = new Http2SessionManager(app.url);
  const unary = grpcJsTransport(new URL(app.url).host);
  return {
    stock: createClient(StockService, createGrpcTransport({ baseUrl: app.url, sessionManager })),
    supply: createClient(SupplyService, unary),
    reservations: createClient(ReservationService, unary),
    [Symbol.asyncDispose]: async () => {
      sessionManager.abort();
      unary[Symbol.dispose]();
    },
  };
}

/** A watch request as an enveloped message. */
export function envelopedRequest(wish: WatchWish): Buffer {
  const message = toBinary(WatchStockRequestSchema, {
    $typeName: "inventory.v1.WatchStockRequest",
    productIds: [...(wish.productIds ?? [])],
    minInterval: durationFromMs(wish.minIntervalMs ?? 0),
  });
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

/** Reads enveloped messages of gRPC and Connect as they arrive. */
export class Envelopes {
  readonly messages: Received[] = [];
  bytes = 0;
  largest = 0;
  #rest = Buffer.alloc(0);

  push(chunk: Buffer): void {
    this.bytes += chunk.length;
    this.#rest = Buffer.concat([this.#rest, chunk]);
    while (this.#rest.length >= 5) {
      const length = this.#rest.readUInt32BE(1);
      if (this.#rest.length < 5 + length) {
        return;
      }
      const message = this.#rest.subarray(5, 5 + length);
      if (this.#rest[0] === 0) {
        this.messages.push(received(fromBinary(WatchStockResponseSchema, message)));
        this.largest = Math.max(this.largest, length);
      }
      this.#rest = this.#rest.subarray(5 + length);
    }
  }

  version(productId: string): number {
    const versions = this.messages.flatMap(({ stocks }) =>
      stocks.filter((stock) => stock.productId === productId).map(({ version }) => version),
    );
    return Math.max(0, ...versions);
  }
}

/** Runs an action for each number below `count`, several concurrently. */
export async function each(
  count: number,
  atOnce: number,
  action: (n: number) => Promise<unknown>,
): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let n = next++; n < count; n = next++) {
      await action(n);
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, count) }, worker));
}
