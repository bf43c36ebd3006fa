import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";

/** Prefix of the line that each server prints at its end: `fast path handled 12 of 34`. */
export const HANDLED_LINE = "fast path handled";

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
  /** Requests that the servers received. */
  readonly requests: number;
  /** Requests that the fast path handled. */
  readonly handled: number;
}

/** Runs the suite, which starts `server.ts` once for each kind of connection. Rejects where it cannot run. */
export async function runSuite({ program, fastPath, args = [], onLine }: SuiteRun): Promise<SuiteResult> {
  const config = ["--mode", "server", "--conf", join(HERE, "suite.yaml"), "--max-servers", `${SERVERS_MAX}`];
  const child = spawn(program, [...config, ...args, "--", process.execPath, join(HERE, "server.ts")], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, LANE: fastPath },
  });
  const exit = new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  let requests = 0;
  let handled = 0;
  const read = (line: string): void => {
    const [, some, all] = new RegExp(`^${HANDLED_LINE} (\\d+) of (\\d+)$`).exec(line) ?? [];
    handled += Number(some ?? 0);
    requests += Number(all ?? 0);
    if (all === undefined) onLine(line);
  };
  for (const input of [child.stdout, child.stderr]) createInterface({ input }).on("line", read);
  return { passed: (await exit) === 0, requests, handled };
}
