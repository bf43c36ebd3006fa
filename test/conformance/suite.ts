import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { cacheDir } from "../support/programs.ts";

/** Prefix of the line that each server prints at its end: `calls on a fast path: 12 of 34`. */
export const COUNT_LINE = "calls on a fast path:";

/** Servers at a time. With more, a start can exceed the suite's limit of ten seconds on a busy machine. */
const SERVERS_MAX = 1;
const HERE = import.meta.dirname;

export interface SuiteRun {
  /** The suite's program, `connectconformance`. */
  readonly program: string;
  /** Value of the environment variable `LANE`. */
  readonly fastPath: "on" | "off";
  /** Further arguments of the program, as `--run PATTERN`. */
  readonly args?: readonly string[];
  /** Called with each line that the suite prints. */
  readonly onLine: (line: string) => void;
}

export interface SuiteResult {
  /** Whether every case passed that is not known to fail. */
  readonly passed: boolean;
  /** Calls that reached a method. */
  readonly calls: number;
  /** Those of them on a fast path. */
  readonly onFastPath: number;
}

/** Runs the suite, which starts `server.ts` once for each kind of connection. Rejects where it cannot run. */
export async function runSuite({ program, fastPath, args = [], onLine }: SuiteRun): Promise<SuiteResult> {
  const config = ["--mode", "server", "--conf", join(HERE, "suite.yaml"), "--max-servers", `${SERVERS_MAX}`];
  const child = spawn(program, [...config, ...args, "--", process.execPath, join(HERE, "server.ts")], {
    stdio: ["ignore", "pipe", "pipe"],
    // With compiled code at hand, a server starts in half the time: the suite waits ten seconds for it.
    env: { NODE_COMPILE_CACHE: join(cacheDir(), "compile"), ...process.env, LANE: fastPath },
  });
  const exit = new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  let calls = 0;
  let onFastPath = 0;
  const read = (line: string): void => {
    const [, some, all] = new RegExp(`^${COUNT_LINE} (\\d+) of (\\d+)$`).exec(line) ?? [];
    onFastPath += Number(some ?? 0);
    calls += Number(all ?? 0);
    if (all === undefined) onLine(line);
  };
  for (const input of [child.stdout, child.stderr]) createInterface({ input }).on("line", read);
  return { passed: (await exit) === 0, calls, onFastPath };
}
