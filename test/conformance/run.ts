/**
 * npm run conformance: runs the Connect project's conformance suite against this server, with the fast path on and off.
 * `npm run conformance -- --run PATTERN` runs a part. Exits with 1 when a case fails that is not known to fail.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { cacheDir, findProgram } from "../support/programs.ts";
import { runSuite } from "./suite.ts";

const SUITE = "connectrpc.com/conformance/cmd/connectconformance@v1.0.7";
const INSTALL_MS_MAX = 10 * 60_000;

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** The path of the suite's program. Builds it once, into the cache, where it is missing and Go is installed. */
function findSuite(): string | undefined {
  const found = findProgram("connectconformance");
  const go = [findProgram("go"), "/usr/local/go/bin/go"].find((path) => path && existsSync(path));
  if (found !== undefined || go === undefined) return found;
  say(`Building ${SUITE} with Go, once`);
  spawnSync(go, ["install", SUITE], {
    stdio: ["ignore", 2, 2],
    env: { ...process.env, GOBIN: join(cacheDir(), "bin") },
    timeout: INSTALL_MS_MAX,
  });
  return findProgram("connectconformance");
}

const program = findSuite();
if (program === undefined) {
  say("connectconformance was not found. Install Go and run this command again, or install it into PATH:");
  say(`  go install ${SUITE}`);
  process.exit(1);
}
say(spawnSync(program, ["--version"], { encoding: "utf8" }).stdout.trim());
for (const fastPath of ["on", "off"] as const) {
  const begin = performance.now();
  say(`\nLANE=${fastPath}`);
  const { passed, calls, onFastPath } = await runSuite({
    program,
    fastPath,
    args: process.argv.slice(2),
    onLine: (line) => line.trim() !== "" && say(`  ${line}`),
  });
  if (fastPath === "on")
    say(`  ${onFastPath} of the ${calls} calls that reached a method came by a fast path.`);
  say(`  ${passed ? "Passed" : "FAILED"} in ${Math.round((performance.now() - begin) / 1_000)} s`);
  if (!passed) process.exitCode = 1;
}
