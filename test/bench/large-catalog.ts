import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, readFile, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { mutationScript } from "../../server/redis/scripts.ts";
import { cacheDir } from "../support/programs.ts";
import type { RedisServer } from "../support/redis-server.ts";
import type { BenchContext } from "./bench-context.ts";
import { fillCatalog } from "./catalog.ts";
import { startPinnedRedis } from "./processes.ts";

export const LARGE = 1_000_000;
export const SOLD_OUT_EVERY = 10;
const SNAPSHOT = "catalog.rdb";
/** Starts Redis empty and then loads the snapshot: loading takes longer than the timeout of a start. */
const LATE_SNAPSHOT = ["--enable-protected-configs", "local", "--enable-debug-command", "local"];

/**
 * A Redis with a million products. They are written once, which takes minutes, and kept as a snapshot in the cache until a
 * script that writes them changes. It has no append-only file, because it is only read.
 */
export async function startLargeRedis({ note }: BenchContext): Promise<RedisServer> {
  const maker = await readFile(join(import.meta.dirname, "catalog.ts"));
  const print = createHash("sha256").update(mutationScript().sha1).update(maker).digest("hex").slice(0, 12);
  const snapshot = join(cacheDir(), "bench", `catalog-${LARGE}-${print}.rdb`);
  const dir = await mkdtemp(join(tmpdir(), "inventory-catalog-"));
  const options = { dir, appendonly: "no", args: LATE_SNAPSHOT } as const;
  try {
    const redis = await startPinnedRedis(options);
    const client = new Redis(redis.url);
    try {
      await client.config("SET", "dbfilename", SNAPSHOT);
      if (!existsSync(snapshot)) {
        note(
          `Putting ${LARGE.toLocaleString("en")} products into Redis, for minutes; later runs find them in ${cacheDir()}`,
        );
        await fillCatalog(redis.url, LARGE, { soldOutEvery: SOLD_OUT_EVERY });
        await client.save();
        await mkdir(join(cacheDir(), "bench"), { recursive: true });
        await copyFile(join(dir, SNAPSHOT), `${snapshot}.part`);
        await rename(`${snapshot}.part`, snapshot);
      }
      // Also in the first run, so that the data has the same layout in memory in each.
      await copyFile(snapshot, join(dir, SNAPSHOT));
      await client.call("DEBUG", "RELOAD", "NOSAVE");
    } catch (error) {
      await redis.stop();
      throw error;
    } finally {
      client.disconnect();
    }
    const stop = async (): Promise<void> => {
      await redis.stop();
      await rm(dir, { recursive: true, force: true });
    };
    return { ...redis, stop, [Symbol.asyncDispose]: stop };
  } catch (error) {
    await rm(dir, { recursive: true, force: true });
    throw error;
  }
}
