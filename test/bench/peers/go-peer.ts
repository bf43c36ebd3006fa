import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { cacheDir, findProgram } from "../../support/programs.ts";
import { type Contestant, startContestant } from "../processes.ts";

const run = promisify(execFile);
const GO_INSTALLED = "/usr/local/go/bin";
/** The first build fetches its modules. */
const BUILD_MS_MAX = 300_000;

/** Builds the Go service of peers/go into the cache. Undefined where there is no Go. */
export async function buildGoPeer(): Promise<string | undefined> {
  const go = findProgram("go") ?? [join(GO_INSTALLED, "go")].find(existsSync);
  if (go === undefined) {
    return undefined;
  }
  const binary = join(cacheDir(), "bench", "go-peer");
  await mkdir(join(cacheDir(), "bench"), { recursive: true });
  await run(go, ["build", "-o", binary, "."], {
    cwd: join(import.meta.dirname, "go"),
    timeout: BUILD_MS_MAX,
  });
  return binary;
}

/** Runs it on one core, as one process of Node has one. */
export function startGoPeer(binary: string, redisUrl: string): Promise<Contestant> {
  return startContestant({
    command: binary,
    args: [],
    env: { GOMAXPROCS: "1", REDIS_URL: redisUrl },
  });
}
