import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { Redis } from "ioredis";
import { OPERATION_RETENTION_MS_DEFAULT } from "../../../server/inventory/operation.ts";
import { operationsSource } from "../../../server/redis/scripts.ts";
import { need } from "../../support/programs.ts";
import type { BenchContext } from "../bench-context.ts";
import { fillCatalog } from "../catalog.ts";
import { pinned, startPinnedRedis } from "../processes.ts";
import type { Turn } from "../rounds.ts";

/** Expected rate of redis-benchmark per second, so that its turns are about as long as the others. */
const RATE_GUESS = 15_000;
const run = promisify(execFile);

export interface RedisBenchmark extends AsyncDisposable {
  /** Half of its calls/s with this number of clients, because a pair is two calls. */
  readonly turn: (clients: number) => Promise<Turn>;
}

/**
 * redis-benchmark on a separate Redis, on the core of the server under test, with one operation of the service per call. Its
 * random numbers cannot refer to the same order twice, so benchmark-tail.lua counts orders instead. `undefined` if it is
 * not installed.
 */
export async function startRedisBenchmark(
  products: number,
  { seconds, note }: BenchContext,
): Promise<RedisBenchmark | undefined> {
  const { missing } = need("redis-benchmark");
  if (missing) {
    note(`Left out: ${missing}`);
    return undefined;
  }
  const redis = await startPinnedRedis();
  const client = new Redis(redis.url);
  await fillCatalog(redis.url, products, { buckets: 1 });
  const sha1 = String(await client.script("LOAD", benchmarkScript()));
  const settings = [OPERATION_RETENTION_MS_DEFAULT, 100_000, 100, 60_000].map(String);
  const half = Math.ceil((RATE_GUESS * seconds) / 2);
  const rateOf = async (operation: "reserve" | "commit", clients: number): Promise<number> => {
    const [command = "", ...args] = pinned("server", [
      "redis-benchmark",
      ...["-p", String(redis.port), "-c", String(clients), "-n", String(half), "-q"],
      ...["EVALSHA", sha1, "1", `bench:${operation}`, ...settings, operation, String(products)],
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
    turn: async (clients) => {
      const [reserves, commits] = [await rateOf("reserve", clients), await rateOf("commit", clients)];
      // A pair takes the time of both.
      return { value: 1 / (1 / reserves + 1 / commits) };
    },
    [Symbol.asyncDispose]: async () => {
      client.disconnect();
      await redis.stop();
    },
  };
}

/** The service's operations, with other parts before and after them. */
function benchmarkScript(): string {
  const tail = readFileSync(join(import.meta.dirname, "benchmark-tail.lua"), "utf8");
  const head = "#!lua\nlocal in_batch = { reserve = true, commit_reservation = true }";
  return `${head}\n${operationsSource()}\n${tail}`;
}
