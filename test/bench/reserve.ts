import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual, promisify } from "node:util";
import { Redis } from "ioredis";
import { pino } from "pino";
import { OPERATION_RETENTION_MS_DEFAULT } from "../../server/inventory/operation.ts";
import { operationsSource } from "../../server/redis/scripts.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { need } from "../support/programs.ts";
import type { RedisServer } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import type { Bench, BenchContext } from "./bench-context.ts";
import { fillCatalog, productIdOf } from "./catalog.ts";
import { LoadProcess } from "./load/load-process.ts";
import { type Contestant, pinned, startPinnedRedis, startService, whileWatching } from "./processes.ts";
import { perCore, type Turn, takeTurns, values } from "./rounds.ts";

const PRODUCTS = 1_000;
const PRODUCT_IDS = Array.from({ length: PRODUCTS }, (_, index) => productIdOf(index + 1));
const HOT_PRODUCT_ID = productIdOf(PRODUCTS + 1);
/** As many as redis-benchmark has, so that both have the same number of calls in flight. */
const CALLERS = 50;
const BENCHMARK_CLIENTS = 50;
/** Expected rate of redis-benchmark per second, so that its turns are about as long as the others. */
const BENCHMARK_RATE_GUESS = 15_000;
const REPLICA_MS_MAX = 10_000;
const run = promisify(execFile);

/** The calls of Orders in a flash sale, compared with the rate of Redis itself with the same scripts. */
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
  let [pairs, reserves, hotReserves, replicatedPairs] = [0, 0, 0, 0];

  const runOrders = async (
    server: Contestant,
    productIds: readonly string[],
    commits: boolean,
    count: (orders: number) => void,
  ): Promise<Turn> => {
    const asked = { url: server.url, productIds, callers: CALLERS, commits, seconds: context.seconds };
    const { result, serverBusy } = await whileWatching(server, () => load.run("order", asked));
    const { orders, refused, seconds } = result.answer;
    if (refused > 0) {
      context.note(`${refused} calls were refused and retried`);
    }
    count(orders);
    return { value: orders / seconds, serverBusy, loadBusy: result.cpuSeconds / seconds };
  };

  const benchmark = await startBenchmark(context);
  if (benchmark !== undefined) {
    servers.use(benchmark);
  }
  const turns = await takeTurns(
    {
      "Reserve + Commit": () => runOrders(service, PRODUCT_IDS, true, (orders) => (pairs += orders)),
      "Reserve + Commit, REDIS_ACKS=1": () =>
        runOrders(replicatedService, PRODUCT_IDS, true, (orders) => (replicatedPairs += orders)),
      "redis-benchmark": benchmark?.turn,
      "Reserve, 1,000 products": () =>
        runOrders(service, PRODUCT_IDS, false, (orders) => (reserves += orders)),
      "Reserve, one product": () =>
        runOrders(service, [HOT_PRODUCT_ID], false, (orders) => (hotReserves += orders)),
    },
    context,
  );
  await checkLedgers(redis, { sold: pairs, reserved: reserves, hotReserved: hotReserves });
  await checkLedgers(replicated, { sold: replicatedPairs, reserved: 0, hotReserved: undefined });
  const orders = pairs + replicatedPairs + reserves + hotReserves;
  context.note(`no unit was oversold: the ledgers match the responses of ${orders} orders`);
  const halves = benchmark && values(turns["redis-benchmark"]);
  return [
    {
      what: "Reserve + Commit, 1,000 products",
      unit: "pairs/s",
      here: values(turns["Reserve + Commit"]),
      peer: halves && { name: "half of redis-benchmark's rate, same scripts", there: halves },
      target: halves && { atLeast: 0.5 },
    },
    {
      what: "Reserve + Commit, acknowledged by one replica",
      unit: "pairs/s",
      here: values(turns["Reserve + Commit, REDIS_ACKS=1"]),
      peer: { name: "the same without a replica", there: values(turns["Reserve + Commit"]) },
      target: { atLeast: 0.6 },
    },
    {
      what: "Reserve + Commit, acknowledged by one replica, by the service's CPU time",
      unit: "pairs/CPU s",
      here: perCore(turns["Reserve + Commit, REDIS_ACKS=1"]),
      peer: { name: "the same without a replica", there: perCore(turns["Reserve + Commit"]) },
      // At most 1.15 times the CPU time.
      target: { atLeast: 0.87 },
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

interface Benchmark extends AsyncDisposable {
  /** Half of its calls/s, because a pair is two calls. */
  readonly turn: () => Promise<Turn>;
}

/**
 * redis-benchmark on a separate Redis, on the core of the server under test, with one operation of the service per call. Its
 * random numbers cannot refer to the same order twice, so peers/benchmark-tail.lua counts orders instead.
 */
async function startBenchmark({ seconds, note }: BenchContext): Promise<Benchmark | undefined> {
  const { missing } = need("redis-benchmark");
  if (missing) {
    note(`Left out: ${missing}`);
    return undefined;
  }
  const redis = await startPinnedRedis();
  const client = new Redis(redis.url);
  await fillCatalog(redis.url, PRODUCTS, { buckets: 1 });
  const sha1 = String(await client.script("LOAD", benchmarkScript()));
  const settings = [OPERATION_RETENTION_MS_DEFAULT, 100_000, 100, 60_000].map(String);
  const half = Math.ceil((BENCHMARK_RATE_GUESS * seconds) / 2);
  const rateOf = async (operation: "reserve" | "commit"): Promise<number> => {
    const [command = "", ...args] = pinned("server", [
      "redis-benchmark",
      ...["-p", String(redis.port), "-c", String(BENCHMARK_CLIENTS), "-n", String(half), "-q"],
      ...["EVALSHA", sha1, "1", `bench:${operation}`, ...settings, operation, String(PRODUCTS)],
    ]);
    const { stdout } = await run(command, args);
    const rate = [...stdout.matchAll(/([\d.]+) requests per second/g)].at(-1)?.[1];
    const done = Number(await client.get(`bench:${operation}`));
    if (rate === undefined || done % half !== 0) {
      throw new Error(`redis-benchmark failed; ${done} of the operations succeeded: ${stdout.slice(-500)}`);
    }
    return Number(rate);
  };
  return {
    turn: async () => {
      const [reserves, commits] = [await rateOf("reserve"), await rateOf("commit")];
      // A pair takes the time of both.
      return { value: 1 / (1 / reserves + 1 / commits) };
    },
    [Symbol.asyncDispose]: async () => {
      client.disconnect();
      await redis.stop();
    },
  };
}

/** The service's operations, with another entry point. */
function benchmarkScript(): string {
  const tail = readFileSync(join(import.meta.dirname, "peers/benchmark-tail.lua"), "utf8");
  return `${operationsSource()}\n${tail}`;
}
