import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import {
  GetStockRequestSchema,
  ListOrder,
  ListStockRequestSchema,
  ListStockResponseSchema,
} from "../../gen/inventory/v1/stock_pb.ts";
import type { Bench } from "./bench-context.ts";
import { fillCatalog, productIdOf } from "./catalog.ts";
import { LARGE, SOLD_OUT_EVERY, startLargeRedis } from "./large-catalog.ts";
import { askOnce, enveloped } from "./load/frames.ts";
import { LoadProcess } from "./load/load-process.ts";
import { type Contestant, cpuOf, startPinnedRedis, startService, whileWatching } from "./processes.ts";
import { perCore, type Turn, takeTurns, warmUp } from "./rounds.ts";
import { quantile } from "./statistics.ts";

const SMALL = 1_000;
const CALLERS = 128;
/** Number of different products that are read, in an order that defeats CPU caches. */
const PRODUCTS_ASKED_FOR = 20_000;
const STRIDE = 7_919;
const ENVELOPE_BYTES = 5;
const GET = "/inventory.v1.StockService/GetStock";
const LIST = "/inventory.v1.StockService/ListStock";

/** Lists that shoppers request, a page of 50 each. */
const LISTS: Readonly<Record<string, MessageInitShape<typeof ListStockRequestSchema>>> = {
  "by name": {},
  "dearest first": { order: ListOrder.PRICE, descending: true },
  "fewest left, in stock": { order: ListOrder.AVAILABLE, inStockOnly: true },
  "a collection's newest": {
    order: ListOrder.UPDATE_TIME,
    descending: true,
    collectionId: "collection-7",
  },
  "between two prices": { minPrice: 50, maxPrice: 51 },
  "a common word": { query: "mug" },
  "a rare word": { query: String(LARGE - 1) },
};

/** Cost of a catalog of a million products, compared with one of a thousand. */
export const measureScale: Bench = async (context) => {
  await using servers = new AsyncDisposableStack();
  const smallRedis = servers.use(await startPinnedRedis());
  await fillCatalog(smallRedis.url, SMALL, { soldOutEvery: SOLD_OUT_EVERY });
  const largeRedis = servers.use(await startLargeRedis(context));
  const small = servers.use(await startService(smallRedis));
  const largeRedisCpu = cpuOf(largeRedis);
  const redisBefore = (await largeRedisCpu.cpuSeconds()) ?? 0;
  const large = servers.use(await startService(largeRedis));
  const redisSeconds = ((await largeRedisCpu.cpuSeconds()) ?? 0) - redisBefore;
  context.note(
    `the start took ${(await large.cpuSeconds())?.toFixed(1) ?? "?"} s of the server's core, ${redisSeconds.toFixed(1)} s of Redis's`,
  );
  const bytes = ((await large.memoryBytes()) - (await small.memoryBytes())) / (LARGE - SMALL);

  const load = servers.use(new LoadProcess(context.signal));
  const contestants = {
    "1,000,000 products": () => getStock(large, LARGE),
    "1,000 products": () => getStock(small, SMALL),
  };
  // Lists are served once the orders are sorted, which takes the larger server two seconds after its start.
  await secondPage(large);
  await warmUp(Object.values(contestants), context.signal);
  const turns = await takeTurns(contestants, context);
  return [
    {
      what: "GetStock of 1,000,000 products, gRPC over h2c",
      unit: "requests/s per core",
      here: perCore(turns["1,000,000 products"]),
      peer: { name: "the same of 1,000", there: perCore(turns["1,000 products"]) },
      target: { atLeast: 0.9 },
    },
    {
      what: "ListStock of 1,000,000 products, one call at a time, p99",
      unit: "ms",
      here: await listStock(),
      target: { atMost: 5 },
    },
    {
      what: "Start until ready with 1,000,000 products",
      unit: "s",
      here: [large.startMs / 1_000],
      target: { atMost: 10 },
    },
    {
      what: "Memory of a product, of 1,000,000",
      unit: "bytes",
      here: [bytes],
      target: { atMost: 250 },
    },
  ];

  async function getStock(server: Contestant, products: number): Promise<Turn> {
    const frames = Array.from({ length: Math.min(products, PRODUCTS_ASKED_FOR) }, (_, index) =>
      enveloped(
        toBinary(
          GetStockRequestSchema,
          create(GetStockRequestSchema, { productId: productIdOf(((index * STRIDE) % products) + 1) }),
        ),
      ).toString("base64"),
    );
    const asked = { url: server.url, path: GET, frames, callers: CALLERS, seconds: context.seconds };
    const { result, serverBusy } = await whileWatching(server, () => load.run("call", asked));
    const { calls, seconds } = result.answer;
    return { value: calls / seconds, serverBusy, loadBusy: result.cpuSeconds / seconds };
  }

  /** The p99 of each round over all lists. */
  async function listStock(): Promise<number[]> {
    const frames = new Map<string, Buffer>();
    for (const [name, request] of Object.entries(LISTS)) {
      frames.set(name, listFrame(request));
    }
    frames.set("a second page by name", await secondPage(large));
    const p99s: number[] = [];
    const byKind = new Map<string, number[]>([...frames.keys()].map((name) => [name, []]));
    const seconds = context.seconds / frames.size;
    for (let round = 0; round < context.rounds; round++) {
      const all: number[] = [];
      for (const [name, frame] of frames) {
        context.signal.throwIfAborted();
        const asked = { url: large.url, path: LIST, frames: [frame.toString("base64")], callers: 1, seconds };
        const { answer } = await load.run("call", asked);
        // The same number of each list, however fast it is.
        const latencies = answer.latenciesMs.slice(0, LISTS_PER_KIND_MAX);
        all.push(...latencies);
        byKind.get(name)?.push(...latencies);
      }
      p99s.push(quantile(all, 0.99));
    }
    for (const [name, latencies] of byKind) {
      context.note(`ListStock, ${name}: p99 ${quantile(latencies, 0.99).toFixed(1)} ms`);
    }
    return p99s;
  }
};

const LISTS_PER_KIND_MAX = 200;

function listFrame(request: MessageInitShape<typeof ListStockRequestSchema>): Buffer {
  return enveloped(toBinary(ListStockRequestSchema, create(ListStockRequestSchema, request)));
}

async function secondPage({ url }: Contestant): Promise<Buffer> {
  const answer = await askOnce(url, LIST, listFrame({}));
  const { nextPageToken, totalSize } = fromBinary(ListStockResponseSchema, answer.subarray(ENVELOPE_BYTES));
  if (totalSize !== LARGE || nextPageToken === "") {
    throw new Error(`The service has ${totalSize} products of ${LARGE}`);
  }
  return listFrame({ pageToken: nextPageToken });
}
