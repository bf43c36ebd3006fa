import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";

/** How each server of a run ends what it says of the lane: `lane took 12 of 34`. */
export const TAKEN_LINE = "lane took";

/** Servers at a time. With more of them the suite's ten seconds for a start are too few on a busy machine. */
const SERVERS_MAX = 1;
const HERE = import.meta.dirname;

export interface SuiteRun {
  /** The suite's program, `connectconformance`. */
  readonly program: string;
  readonly lane: "on" | "off";
  /** More of the program's own arguments, as `--run PATTERN`. */
  readonly args?: readonly string[];
  /** Told each line that the suite prints. */
  readonly onLine: (line: string) => void;
}

export interface SuiteResult {
  /** What every case that is not known to fail did. */
  readonly passed: boolean;
  /** Requests that came to the servers, and those of them that the lane took. Both 0 without the lane. */
  readonly requests: number;
  readonly taken: number;
}

/** Runs the suite against `server.ts`, which it starts once for each kind of connection. Rejects where it cannot run. */
export async function runSuite({ program, lane, args = [], onLine }: SuiteRun): Promise<SuiteResult> {
  const config = ["--mode", "server", "--conf", join(HERE, "suite.yaml"), "--max-servers", `${SERVERS_MAX}`];
  const child = spawn(program, [...config, ...args, "--", process.execPath, join(HERE, "server.ts")], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, LANE: lane },
  });
  const exit = new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  let requests = 0;
  let taken = 0;
  const read = (line: string): void => {
    const [, some, all] = new RegExp(`^${TAKEN_LINE} (\\d+) of (\\d+)$`).exec(line) ?? [];
    taken += Number(some ?? 0);
    requests += Number(all ?? 0);
    if (all === undefined) onLine(line);
  };
  for (const input of [child.stdout, child.stderr]) createInterface({ input }).on("line", read);
  return { passed: (await exit) === 0, requests, taken };
}
