import { type ChainableCommander, Redis } from "ioredis";
import { BUCKETS_DEFAULT, Keys } from "../../server/redis/keys.ts";
import { until } from "../support/until.ts";
import type { Bench } from "./bench-context.ts";
import { productIdOf, UNITS } from "./catalog.ts";
import { LARGE, startLargeRedis } from "./large-catalog.ts";
import { type Contestant, startService, whileWatching } from "./processes.ts";
import { perCore, type Turn, takeTurns } from "./rounds.ts";

const HOT_PRODUCTS = 100;
/** Changes of one turn, for each second that a turn of other benchmarks lasts. */
const CHANGES_PER_SECOND = 40_000;
/** Changes sent in one pipeline. */
const PIPELINE = 1_000;
/** Pipelines in flight. */
const PIPELINES = 4;
const CAUGHT_UP_MS_MAX = 120_000;

/**
 * The change stream that one server's mirror follows. The changes are appended to the streams as they are, since the
 * scripts that make them are slower than a mirror that follows them.
 */
export const measureStream: Bench = async (context) => {
  await using servers = new AsyncDisposableStack();
  const redis = servers.use(await startLargeRedis(context));
  const server = servers.use(await startService(redis, { SHED_DELAY_MS: "0" }));
  const stream = servers.use(new ChangeWriter(redis.url));
  const changes = Math.round(CHANGES_PER_SECOND * context.seconds);
  const turns = await takeTurns(
    {
      "random products": () => follow(server, stream, changes, LARGE),
      "hot products": () => follow(server, stream, changes, HOT_PRODUCTS),
    },
    context,
  );
  const unit = "changes/s per core";
  return [
    {
      what: `Change stream of one server, ${LARGE.toLocaleString("en")} products at random`,
      unit,
      here: perCore(turns["random products"]),
      target: { atLeast: 30_000 },
    },
    {
      what: `Change stream of one server, ${HOT_PRODUCTS} hot products`,
      unit,
      here: perCore(turns["hot products"]),
      target: { atLeast: 100_000 },
    },
  ];
};

/** Appends changes, and waits until the server has them all. */
export async function follow(
  server: Contestant,
  stream: ChangeWriter,
  changes: number,
  products: number,
): Promise<Turn> {
  const startedAt = performance.now();
  const { serverBusy } = await whileWatching(server, async () => {
    await stream.append(changes, products);
    await until(() => hasAll(server, stream.newest), "the server has all changes", CAUGHT_UP_MS_MAX);
  });
  return { value: changes / ((performance.now() - startedAt) / 1_000), serverBusy };
}

async function hasAll(server: Contestant, versions: ReadonlyMap<string, number>): Promise<boolean> {
  const productIds = [...versions.keys()];
  const response = await fetch(`${server.url}/inventory.v1.StockService/BatchGetStock`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ productIds }),
  });
  const { stocks } = (await response.json()) as { stocks: { productId: string; version: string }[] };
  return stocks.every(({ productId, version }) => Number(version) === versions.get(productId));
}

/** Appends changes as `record` in server/redis/scripts/ledger.lua does, without the ledgers. */
export class ChangeWriter implements Disposable {
  readonly #client: Redis;
  readonly #keys = new Keys(BUCKETS_DEFAULT);
  readonly #versions = new Uint32Array(LARGE).fill(1);
  /** The newest change of each bucket: version by product. */
  newest: ReadonlyMap<string, number> = new Map();

  constructor(redisUrl: string) {
    this.#client = new Redis(redisUrl);
  }

  /** Appends reservations of one unit each, of products at random. */
  async append(changes: number, products: number): Promise<void> {
    const newest = new Map<number, string>();
    const inFlight = new Set<Promise<unknown>>();
    for (let from = 0; from < changes; from += PIPELINE) {
      const pipeline = this.#client.pipeline();
      for (let n = from; n < Math.min(from + PIPELINE, changes); n++) {
        this.#change(pipeline, Math.floor(Math.random() * products), newest);
      }
      const sent = pipeline.exec().finally(() => inFlight.delete(sent));
      inFlight.add(sent);
      if (inFlight.size === PIPELINES) {
        await Promise.race(inFlight);
      }
    }
    await Promise.all(inFlight);
    this.newest = new Map([...newest.values()].map((id) => [id, this.#versions[indexOf(id)] ?? 0]));
  }

  [Symbol.dispose](): void {
    this.#client.disconnect();
  }

  #change(pipeline: ChainableCommander, index: number, newest: Map<number, string>): void {
    const productId = productIdOf(index + 1);
    const bucket = this.#keys.bucketOf(productId);
    const version = (this.#versions[index] ?? 0) + 1;
    this.#versions[index] = version;
    newest.set(bucket, productId);
    const ledger = `${UNITS} 1 0 0 ${version} 0 ${version} ${Date.now()} 0`;
    const text = `reserved -1 ${ledger} orders\n${productId}\norder-${productId}-${version}\n\n`;
    pipeline.xadd(this.#keys.changes(bucket), "*", "c", text);
  }
}

function indexOf(productId: string): number {
  return Number(productId.slice(productId.indexOf("-") + 1)) - 1;
}
