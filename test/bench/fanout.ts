import { execFileSync } from "node:child_process";
import { pino } from "pino";
import { RedisStore } from "../../server/redis/store.ts";
import type { Bench, BenchContext } from "./bench-context.ts";
import { fillCatalog, productIdOf } from "./catalog.ts";
import { LoadProcess } from "./load/load-process.ts";
import type { Outcome } from "./outcome.ts";
import {
  type Contestant,
  startNodePeer,
  startPinnedRedis,
  startService,
  whileWatching,
} from "./processes.ts";
import { perCore, type Turn, takeTurns } from "./rounds.ts";

const WATCHERS = 5_000;
/** Watchers that are opened before the memory is measured, because the first ones cause one-time allocations. */
const WARM_WATCHERS = 1_000;
const SLOW_READERS = 900;
/** Window of a slow reader: about ten messages. */
const SLOW_READER_WINDOW_BYTES = 1_024;
const CHANGES_FOR_SLOW_READERS = 5_000;
/** Descriptors for everything except watchers, in the process that has most of them. */
const DESCRIPTORS_SPARE = 1_000;
/** The service and its two peers. */
const CROWDS = 3;
const KILOBYTE = 1_024;
const PRODUCT_ID = productIdOf(1);
const PROTOCOLS = {
  h1: { name: "HTTP/1.1", target: 5, ofSameBytes: 1, watcherKilobytes: 13 },
  h2: { name: "HTTP/2", target: 10, ofSameBytes: 0.85, watcherKilobytes: 6 },
} as const;

/** Every change of one product sent to thousands of watchers, compared with connect-node's generators, and the memory of watchers. */
export const measureFanOut: Bench = async (context) => {
  const watchers = watchersThatFit(context);
  const outcomes: Outcome[] = [];
  for (const protocol of ["h1", "h2"] as const) {
    outcomes.push(...(await measureProtocol(protocol, watchers, context)));
  }
  outcomes.push(await measureSlowReaders(context));
  return outcomes;
};

async function measureProtocol(
  protocol: keyof typeof PROTOCOLS,
  watchers: number,
  context: BenchContext,
): Promise<Outcome[]> {
  const { name, target, ofSameBytes, watcherKilobytes } = PROTOCOLS[protocol];
  await using servers = new AsyncDisposableStack();
  // One Redis for each, so that a change reaches the watchers of one server only.
  const redis = servers.use(await startPinnedRedis());
  const stockRedis = servers.use(await startPinnedRedis());
  await fillCatalog(redis.url, 1);
  await fillCatalog(stockRedis.url, 1);
  const service = servers.use(await startService(redis));
  const stock = servers.use(
    await startNodePeer("stock-connect.ts", { REDIS_URL: stockRedis.url, PROTOCOL: protocol }),
  );
  const bare = servers.use(await startNodePeer("bare-fanout.ts", { PRODUCT_ID, PROTOCOL: protocol }));
  const load = servers.use(new LoadProcess(context.signal));

  const serviceBytes = await openMeasured(service, "service");
  const stockBytes = await openMeasured(stock, "stock");
  await openMeasured(bare, "bare");
  const turns = await takeTurns(
    {
      service: () => fanOut(service, "service"),
      "connect-node's generator": () => fanOut(stock, "stock"),
      "the same bytes to all": () => fanOut(bare, "bare"),
    },
    { ...context, note: (line) => context.note(`${name}: ${line}`) },
  );
  const fannedOut = {
    what: `WatchStock to ${watchers} watchers, ${name}`,
    unit: "deliveries/s per core",
    here: perCore(turns.service),
  };
  return [
    {
      ...fannedOut,
      peer: { name: "connect-node's generator", there: perCore(turns["connect-node's generator"]) },
      target: { atLeast: target },
    },
    // The upper bound, which also shows that the load generator can take it.
    {
      ...fannedOut,
      peer: { name: "the same bytes to all", there: perCore(turns["the same bytes to all"]) },
      target: { atLeast: ofSameBytes },
    },
    {
      what: `Memory of an idle watcher, ${name}`,
      unit: "KB",
      here: [serviceBytes / KILOBYTE],
      target: { atMost: watcherKilobytes },
    },
    {
      what: `Memory of an idle watcher of connect-node's generator, ${name}`,
      unit: "KB",
      here: [stockBytes / KILOBYTE],
    },
  ];

  /** Opens the watchers of a server. Resolves with its bytes of memory per watcher. */
  async function openMeasured(server: Contestant, crowd: string): Promise<number> {
    const asked = { crowd, url: server.url, protocol, productId: PRODUCT_ID, minIntervalMs: 0 };
    await load.run("openWatchers", { ...asked, count: WARM_WATCHERS });
    const before = await server.memoryBytes();
    await load.run("openWatchers", { ...asked, count: watchers - WARM_WATCHERS });
    return ((await server.memoryBytes()) - before) / (watchers - WARM_WATCHERS);
  }

  async function fanOut(server: Contestant, crowd: string): Promise<Turn> {
    const asked = { crowd, url: server.url, seconds: context.seconds };
    const { result, serverBusy } = await whileWatching(server, () => load.run("fanOut", asked));
    const { deliveries, seconds } = result.answer;
    return { value: deliveries / seconds, serverBusy, loadBusy: result.cpuSeconds / seconds };
  }
}

/** Memory that a server holds for watchers that stop reading, and whether they receive the newest value when they resume. */
async function measureSlowReaders(context: BenchContext): Promise<Outcome> {
  await using servers = new AsyncDisposableStack();
  const redis = servers.use(await startPinnedRedis());
  await fillCatalog(redis.url, 1);
  const service = servers.use(await startService(redis));
  const load = servers.use(new LoadProcess(context.signal));
  const { url } = service;
  const changes = { url, productId: PRODUCT_ID, count: CHANGES_FOR_SLOW_READERS };
  await load.run("reserveMany", changes);
  await load.run("openWatchers", {
    crowd: "slow",
    url,
    protocol: "h2",
    productId: PRODUCT_ID,
    minIntervalMs: 0,
    streamWindow: SLOW_READER_WINDOW_BYTES,
    count: SLOW_READERS,
  });
  const before = await service.memoryBytes();
  await load.run("reserveMany", changes);
  const held = ((await service.memoryBytes()) - before) / SLOW_READERS;
  // Rejects, and fails the row, unless every watcher receives it.
  await load.run("readOn", { crowd: "slow", version: await newestVersion(redis.url) });
  return {
    what: `Held for a slow reader over ${CHANGES_FOR_SLOW_READERS} changes, HTTP/2; all ended on the newest value`,
    unit: "KB",
    here: [Math.max(0, held / KILOBYTE)],
    target: { atMost: 32 },
  };
}

async function newestVersion(redisUrl: string): Promise<number> {
  const store = new RedisStore({ endpoint: { url: redisUrl }, log: pino({ level: "silent" }) });
  try {
    await store.start(5_000);
    return (await store.getLedger(PRODUCT_ID)).version;
  } finally {
    await store.close();
  }
}

/** The load generator has the sockets of all watchers, one for each watcher over HTTP/1.1. */
function watchersThatFit({ note }: BenchContext): number {
  const limit = execFileSync("sh", ["-c", "ulimit -n"], { encoding: "utf8" }).trim();
  const descriptors = limit === "unlimited" ? Number.POSITIVE_INFINITY : Number(limit);
  const fit = Math.floor((descriptors - DESCRIPTORS_SPARE) / CROWDS);
  if (fit >= WATCHERS) {
    return WATCHERS;
  }
  if (fit < 2 * WARM_WATCHERS) {
    throw new Error(`The limit of open files is ${descriptors}: raise it with ulimit -n`);
  }
  note(
    `${fit} watchers instead of ${WATCHERS}, because the limit of open files is ${descriptors} (ulimit -n)`,
  );
  return fit;
}
