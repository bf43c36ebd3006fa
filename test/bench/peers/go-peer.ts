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

/** Builds the Go service of peers/go into the cache. Without Go or its modules, `missing` says why there is no binary. */
export async function buildGoPeer(): Promise<{ readonly binary?: string; readonly missing?: string }> {
  const go = findProgram("go") ?? [join(GO_INSTALLED, "go")].find(existsSync);
  if (go === undefined) {
    return { missing: "Go is not installed" };
  }
  const binary = join(cacheDir(), "bench", "go-peer");
  await mkdir(join(cacheDir(), "bench"), { recursive: true });
  try {
    await run(go, ["build", "-o", binary, "."], {
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
