import { setTimeout as pause } from "node:timers/promises";
import { Keys } from "../../server/redis/keys.ts";
import { startRedisCluster } from "../support/redis-cluster.ts";
import type { RedisServer } from "../support/redis-server.ts";
import type { Bench } from "./bench-context.ts";
import { productIdOf, putCatalog } from "./catalog.ts";
import { LoadProcess } from "./load/load-process.ts";
import type { Outcome } from "./outcome.ts";
import {
  type Contestant,
  type CpuMeter,
  cpuOf,
  pin,
  startPinnedRedis,
  startServiceWith,
  together,
} from "./processes.ts";
import { type Turn, takeTurns, values, warmUp } from "./rounds.ts";
import { ScriptCalls } from "./script-calls.ts";

const PRODUCTS = 1_000;
const PRODUCT_IDS = Array.from({ length: PRODUCTS }, (_, index) => productIdOf(index + 1));
/** So many that a batch for one bucket has several operations, as on a primary that is nearly full. */
const CALLERS = 500;
const PRIMARIES = [3, 6];
const LINES = [1, 3];
const CLUSTER_BUCKETS = Number(process.env["BENCH_BUCKETS"] ?? 64);
/** Time without load in which the CPU time of polling and heartbeats is measured. */
const IDLE_SECONDS = 2;
/** A script call settles about this number of commits. */
const COMMITS_PER_SETTLE = 100;
/** Tolerance of the predicted cost. */
const TOLERANCE = 1.2;

interface Shop {
  readonly name: string;
  readonly primaries: number;
  readonly service: Contestant;
  readonly redis: CpuMeter;
  readonly scripts: ScriptCalls;
  /** CPU seconds and script calls per second without load. */
  idle: { redis: number; service: number; calls: number };
}

/** What an order costs, in CPU time: on one primary, and on a Redis Cluster, where it takes more script calls. */
export const measureCluster: Bench = async (context) => {
  await using servers = new AsyncDisposableStack();
  const load = servers.use(new LoadProcess(context.signal));
  const shops: Shop[] = [];
  const open = async (name: string, redis: readonly RedisServer[], env: NodeJS.ProcessEnv): Promise<void> => {
    const service = servers.use(await startServiceWith(env));
    await putCatalog(service.url, PRODUCTS);
    const meter = together(...redis.map(cpuOf));
    const scripts = servers.use(new ScriptCalls(redis.map(({ url }) => url)));
    const idle = { redis: 0, service: 0, calls: 0 };
    shops.push({ name, primaries: redis.length, service, redis: meter, scripts, idle });
  };
  const single = servers.use(await startPinnedRedis());
  await open("one primary", [single], { REDIS_URL: single.url });
  for (const primaries of PRIMARIES) {
    const cluster = servers.use(await startRedisCluster({ primaries }));
    const nodes = cluster.nodes.map(({ server }) => server);
    for (const { pid } of nodes) {
      await pin("load", pid);
    }
    await open(`${primaries} primaries`, nodes, {
      REDIS_CLUSTER: cluster.addresses,
      INVENTORY_BUCKETS: String(CLUSTER_BUCKETS),
    });
    for (const { address, direct } of cluster.nodes) {
      if ((await direct.dbsize()) === 0) {
        throw new Error(`The service keeps nothing on ${address}, one of ${primaries} primaries`);
      }
    }
  }

  /** CPU seconds of Redis and of the service, and script calls, during an action, per second of its duration. */
  const measure = async <T>({ service, redis, scripts }: Shop, action: () => Promise<T>) => {
    const used = async () => ({
      redis: (await redis.cpuSeconds()) ?? 0,
      service: (await service.cpuSeconds()) ?? 0,
      calls: await scripts.count(),
    });
    const [before, startedAt] = [await used(), performance.now()];
    const result = await action();
    const [after, seconds] = [await used(), (performance.now() - startedAt) / 1_000];
    return {
      result,
      redis: (after.redis - before.redis) / seconds,
      service: (after.service - before.service) / seconds,
      calls: (after.calls - before.calls) / seconds,
    };
  };
  const costs = new Map<string, { redis: number[]; service: number[]; calls: number[] }>();
  const order = async (shop: Shop, lines: number): Promise<Turn> => {
    const asked = {
      url: shop.service.url,
      productIds: PRODUCT_IDS,
      callers: CALLERS,
      commits: true,
      lines,
      seconds: context.seconds,
    };
    const { result, redis, service, calls } = await measure(shop, () => load.run("order", asked));
    const { orders, refused, seconds } = result.answer;
    if (refused > 0) {
      context.note(`${refused} calls were refused and retried`);
    }
    const rate = orders / seconds;
    const cost = costs.get(nameOf(shop, lines)) ?? { redis: [], service: [], calls: [] };
    costs.set(nameOf(shop, lines), cost);
    cost.redis.push((1_000_000 * (redis - shop.idle.redis)) / rate);
    cost.service.push((1_000_000 * (service - shop.idle.service)) / rate);
    cost.calls.push((calls - shop.idle.calls) / rate);
    return { value: rate, serverBusy: service, loadBusy: result.cpuSeconds / seconds };
  };

  await warmUp(
    shops.map((shop) => () => order(shop, 1)),
    context.signal,
  );
  for (const shop of shops) {
    const { redis, service, calls } = await measure(shop, () => pause(IDLE_SECONDS * 1_000));
    shop.idle = { redis, service, calls };
    context.note(
      `${shop.name}, idle: Redis ${percent(redis)}, the service ${percent(service)} of a core, which is not counted below`,
    );
  }
  const turns = await takeTurns(
    Object.fromEntries(
      LINES.flatMap((lines) => shops.map((shop) => [nameOf(shop, lines), () => order(shop, lines)] as const)),
    ),
    context,
  );

  const [one, ...clusters] = shops;
  if (one === undefined) {
    throw new RangeError("Nothing to compare a Cluster with");
  }
  const recorded = (shop: Shop, lines: number, of: "redis" | "service" | "calls"): number[] =>
    costs.get(nameOf(shop, lines))?.[of].slice(-context.rounds) ?? [];
  const outcomesOf = (cluster: Shop, lines: number): Outcome[] => {
    const predicted = scriptCalls(lines) / SCRIPT_CALLS_TOGETHER;
    const order = `Order of ${lines === 1 ? "1 line" : `${lines} lines`}, ${cluster.name}`;
    const costOf = (of: "redis" | "service", name: string): Outcome => ({
      what: `${order}: CPU time of ${name}`,
      unit: "µs",
      here: recorded(cluster, lines, of),
      peer: { name: "one primary", there: recorded(one, lines, of) },
      target: { atMost: rounded(predicted * TOLERANCE) },
    });
    const full = (shop: Shop): number[] =>
      recorded(shop, lines, "redis").map((micros) => (shop.primaries * 1_000_000) / micros);
    return [
      costOf("redis", "all Redis nodes"),
      costOf("service", "the service"),
      {
        what: `${order}: the rates at which each primary is full, added up`,
        unit: "orders/s",
        here: full(cluster),
        peer: { name: "one primary", there: full(one) },
        target: { atLeast: rounded(cluster.primaries / predicted / TOLERANCE) },
      },
      {
        what: `${order}: script calls (a call has all operations of a batch on one bucket)`,
        unit: "calls",
        here: recorded(cluster, lines, "calls"),
        peer: { name: "one primary", there: recorded(one, lines, "calls") },
      },
      {
        what: `${order}: by the clock, all nodes on one core`,
        unit: "orders/s",
        here: values(turns[nameOf(cluster, lines)] ?? []),
        peer: { name: "one primary", there: values(turns[nameOf(one, lines)] ?? []) },
      },
    ];
  };
  return LINES.flatMap((lines) => clusters.flatMap((cluster) => outcomesOf(cluster, lines)));
};

/** Reserve and Commit. */
const SCRIPT_CALLS_TOGETHER = 2;

/**
 * Script calls of one order in a Cluster, on average over the catalog: for lines in k buckets, Reserve has k holds and a
 * decision, Commit has a decision, k applications and its part of a call that settles many.
 */
function scriptCalls(lines: number): number {
  const keys = new Keys(CLUSTER_BUCKETS);
  const counts = Array.from({ length: Math.floor(PRODUCTS / lines) }, (_, order) => {
    const products = PRODUCT_IDS.slice(order * lines, (order + 1) * lines);
    return new Set(products.map((id) => keys.bucketOf(id))).size;
  });
  const buckets = counts.reduce((sum, count) => sum + count, 0) / counts.length;
  return 2 * buckets + 2 + 1 / COMMITS_PER_SETTLE;
}

function nameOf({ name }: Shop, lines: number): string {
  return `${name}, ${lines === 1 ? "1 line" : `${lines} lines`}`;
}

/** Three digits, as the table shows them. */
function rounded(value: number): number {
  return Number(value.toPrecision(3));
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)}%`;
}
