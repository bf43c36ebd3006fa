import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { create, toBinary } from "@bufbuild/protobuf";
import { Redis } from "ioredis";
import { pino } from "pino";
import { GetStockRequestSchema } from "../../gen/inventory/v1/stock_pb.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { need } from "../support/programs.ts";
import type { RedisServer } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import type { Bench } from "./bench-context.ts";
import { fillCatalog, productIdOf } from "./catalog.ts";
import { askOnce, enveloped } from "./load/frames.ts";
import { h2load } from "./load/h2load.ts";
import { LoadProcess } from "./load/load-process.ts";
import { startRedisBenchmark } from "./peers/redis-benchmark.ts";
import { type Contestant, startPinnedRedis, startService, whileWatching } from "./processes.ts";
import { cpuMicros, type Turn, takeTurns, values, warmUp } from "./rounds.ts";

const PRODUCTS = 1_000;
const PRODUCT_IDS = Array.from({ length: PRODUCTS }, (_, index) => productIdOf(index + 1));
const HOT_PRODUCT_ID = productIdOf(PRODUCTS + 1);
/** redis-benchmark has as many clients, so that both have the same number of calls in flight. */
const CALLERS = 50;
const MANY_CALLERS = 500;
/** Reserve and Commit. */
const MUTATIONS_PER_ORDER = 2;
const GET_STOCK = "/inventory.v1.StockService/GetStock";
const REPLICA_MS_MAX = 10_000;

/** The calls of Orders, compared with the rate of Redis itself with the same scripts, and with reads. */
export const measureReserve: Bench = async (context) => {
  await using servers = new AsyncDisposableStack();
  const redis = servers.use(await startPinnedRedis());
  await fillCatalog(redis.url, PRODUCTS + 1);
  const service = servers.use(await startService(redis));
  const replicated = servers.use(await startPinnedRedis());
  await fillCatalog(replicated.url, PRODUCTS);
  servers.use(await startReplica(replicated));
  const replicatedService = servers.use(await startService(replicated, { REDIS_ACKS: "1" }));
  const load = servers.use(new LoadProcess(context.signal));
  const made = { pairs: 0, replicatedPairs: 0, reserves: 0, hotReserves: 0 };

  const runOrders = async (
    counted: keyof typeof made,
    options: {
      readonly callers?: number;
      readonly productIds?: readonly string[];
      readonly commits?: boolean;
    },
  ): Promise<Turn> => {
    const server = counted === "replicatedPairs" ? replicatedService : service;
    const { callers = CALLERS, productIds = PRODUCT_IDS, commits = true } = options;
    const asked = { url: server.url, productIds, callers, commits, seconds: context.seconds };
    const { result, serverBusy } = await whileWatching(server, () => load.run("order", asked));
    const { orders, refused, seconds } = result.answer;
    if (refused > 0) {
      context.note(`${refused} calls were refused and retried`);
    }
    made[counted] += orders;
    return { value: orders / seconds, serverBusy, loadBusy: result.cpuSeconds / seconds };
  };

  const benchmark = await startRedisBenchmark(PRODUCTS, context);
  if (benchmark !== undefined) {
    servers.use(benchmark);
  }
  const reading = need("h2load");
  if (reading.missing) {
    context.note(`Left out: GetStock: ${reading.missing}`);
  }
  const read = reading.missing ? undefined : await readerOf(service, redis.dir);
  await warmUp([() => runOrders("pairs", {}), () => runOrders("replicatedPairs", {})], context.signal);
  const turns = await takeTurns(
    {
      pairs: () => runOrders("pairs", {}),
      [`pairs, ${MANY_CALLERS} callers`]: () => runOrders("pairs", { callers: MANY_CALLERS }),
      "pairs, REDIS_ACKS=1": () => runOrders("replicatedPairs", {}),
      "redis-benchmark": benchmark && (() => benchmark.turn(CALLERS)),
      [`redis-benchmark, ${MANY_CALLERS} clients`]: benchmark && (() => benchmark.turn(MANY_CALLERS)),
      GetStock: read && (() => read(context)),
      "Reserve, 1,000 products": () => runOrders("reserves", { commits: false }),
      "Reserve, one product": () =>
        runOrders("hotReserves", { productIds: [HOT_PRODUCT_ID], commits: false }),
    },
    context,
  );
  const { pairs, replicatedPairs, reserves, hotReserves } = made;
  await checkLedgers(redis, { sold: pairs, reserved: reserves, hotReserved: hotReserves });
  await checkLedgers(replicated, { sold: replicatedPairs, reserved: 0, hotReserved: undefined });
  const orders = pairs + replicatedPairs + reserves + hotReserves;
  context.note(`no unit was oversold: the ledgers match the responses of ${orders} orders`);

  const crowds = [
    { callers: CALLERS, here: turns.pairs, there: turns["redis-benchmark"] },
    {
      callers: MANY_CALLERS,
      here: turns[`pairs, ${MANY_CALLERS} callers`],
      there: turns[`redis-benchmark, ${MANY_CALLERS} clients`],
    },
  ];
  const perMutation = cpuMicros(turns.pairs).map((micros) => micros / MUTATIONS_PER_ORDER);
  return [
    ...crowds.map(({ callers, here, there }) => ({
      what: `Reserve + Commit, 1,000 products, ${callers} callers`,
      unit: "pairs/s",
      here: values(here ?? []),
      peer: benchmark && {
        name: `half of redis-benchmark's rate, ${callers} clients, same scripts`,
        there: values(there ?? []),
      },
      target: benchmark && { atLeast: 0.7 },
    })),
    {
      what: "CPU time of the service for a mutation, 50 callers",
      unit: "µs",
      here: perMutation,
      peer: read && { name: "for a GetStock", there: cpuMicros(turns.GetStock) },
      target: read && { atMost: 2.2 },
    },
    {
      what: "Reserve + Commit, acknowledged by one replica",
      unit: "pairs/s",
      here: values(turns["pairs, REDIS_ACKS=1"]),
      peer: { name: "the same without a replica", there: values(turns.pairs) },
      target: { atLeast: 0.6 },
    },
    {
      what: "CPU time of the service for Reserve + Commit, acknowledged by one replica",
      unit: "µs",
      here: cpuMicros(turns["pairs, REDIS_ACKS=1"]),
      peer: { name: "the same without a replica", there: cpuMicros(turns.pairs) },
      target: { atMost: 1.15 },
    },
    {
      what: "Reserve, one hot product",
      unit: "reserves/s",
      here: values(turns["Reserve, one product"]),
      peer: { name: "the same on 1,000 products", there: values(turns["Reserve, 1,000 products"]) },
      target: { atLeast: 0.8 },
    },
  ];
};

/** A turn of GetStock by h2load, as in the row `unary`. */
async function readerOf(service: Contestant, dir: string) {
  const bodyFile = join(dir, "GetStock.bin");
  const frame = enveloped(
    toBinary(GetStockRequestSchema, create(GetStockRequestSchema, { productId: productIdOf(1) })),
  );
  await writeFile(bodyFile, frame);
  const answerBytes = (await askOnce(service.url, GET_STOCK, frame)).length;
  return (options: { readonly seconds: number; readonly signal: AbortSignal }): Promise<Turn> =>
    h2load(service, { ...options, path: GET_STOCK, bodyFile, answerBytes });
}

/** A replica of this Redis, on the same core. Resolves when it is online. */
async function startReplica(primary: RedisServer): Promise<RedisServer> {
  const replica = await startPinnedRedis({
    args: ["--replicaof", `127.0.0.1 ${primary.port}`, "--repl-diskless-sync-delay", "0"],
  });
  const client = new Redis(primary.url);
  try {
    await until(async () => (await client.wait(1, 1_000)) === 1, "the replica is online", REPLICA_MS_MAX);
    return replica;
  } catch (error) {
    await replica.stop();
    throw error;
  } finally {
    client.disconnect();
  }
}

interface ExpectedTotals {
  readonly sold: number;
  readonly reserved: number;
  /** Units of the hot product; `undefined` if it is not in the catalog. */
  readonly hotReserved: number | undefined;
}

/** Checks that the ledgers have exactly the units in the responses. */
async function checkLedgers(redis: RedisServer, expected: ExpectedTotals): Promise<void> {
  const store = new RedisStore({ endpoint: { url: redis.url }, log: pino({ level: "silent" }) });
  try {
    await store.start(5_000);
    const ledgers = await Promise.all(PRODUCT_IDS.map((id) => store.getLedger(id)));
    const found: ExpectedTotals = {
      sold: ledgers.reduce((sum, ledger) => sum + ledger.sold, 0),
      reserved: ledgers.reduce((sum, ledger) => sum + ledger.reserved, 0),
      hotReserved:
        expected.hotReserved === undefined ? undefined : (await store.getLedger(HOT_PRODUCT_ID)).reserved,
    };
    if (!isDeepStrictEqual(found, expected)) {
      throw new Error(
        `The ledgers have ${JSON.stringify(found)}; the responses have ${JSON.stringify(expected)}`,
      );
    }
  } finally {
    await store.close();
  }
}
