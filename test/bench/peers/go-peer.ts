import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { cacheDir, findProgram } from "../../support/programs.ts";
import { type Contestant, startContestant } from "../processes.ts";

const run = promisify(execFile);
const GO_INSTALLED = "/usr/local/go/bin";
/** The first build downloads its modules. */
const BUILD_MS_MAX = 300_000;

/** The Go programs of peers/go: `.` reads counts from Redis, `postgres` reserves units in PostgreSQL. */
type GoPeer = "." | "postgres";

/** Builds a Go program into the cache. Without Go or its modules, `missing` says why there is no binary. */
export async function buildGoPeer(
  program: GoPeer,
): Promise<{ readonly binary?: string; readonly missing?: string }> {
  const go = findProgram("go") ?? [join(GO_INSTALLED, "go")].find(existsSync);
  if (go === undefined) {
    return { missing: "Go is not installed" };
  }
  const binary = join(cacheDir(), "bench", program === "." ? "go-peer" : `go-${program}`);
  await mkdir(join(cacheDir(), "bench"), { recursive: true });
  try {
    await run(go, ["build", "-o", binary, `./${program}`], {
      cwd: join(import.meta.dirname, "go"),
      timeout: BUILD_MS_MAX,
    });
  } catch (error) {
    const { stderr = "" } = error as { stderr?: string };
    return { missing: `go build failed: ${stderr.trim().split("\n").at(-1) || String(error)}` };
  }
  return { binary };
}

/** Runs it on one core, like a process of Node. */
export function startGoPeer(binary: string, redisUrl: string): Promise<Contestant> {
  return startContestant({
    command: binary,
    args: [],
    env: { GOMAXPROCS: "1", REDIS_URL: redisUrl },
  });
}

/** Runs it on every core, like its PostgreSQL. It may have as many connections as there are callers. */
export function startGoPostgresPeer(
  binary: string,
  postgresUrl: string,
  callers: number,
): Promise<Contestant> {
  return startContestant({
    command: binary,
    args: [],
    env: { POSTGRES_URL: `${postgresUrl}?pool_max_conns=${callers}` },
    pinned: false,
  });
}
