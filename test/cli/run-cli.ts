import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { INHERITED_ENVIRONMENT } from "../support/app.ts";

const MAIN = join(import.meta.dirname, "../../cli/main.ts");

/** A run of the command line in a process of its own, as a shell starts it. */
export interface CliRun {
  readonly stdout: () => string;
  readonly stderr: () => string;
  readonly signal: (signal: NodeJS.Signals) => void;
  /** Closes the reading end of its standard output. */
  readonly closeStdout: () => void;
  /** The exit code, or the name of the signal that ended it. */
  readonly exit: Promise<number | NodeJS.Signals | null>;
}

export interface CliOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  readonly input?: string | Buffer;
}

/** Starts `inventory ARGS` and does not wait for anything. Standard input is no terminal. */
export function startCli(args: readonly string[], { env = {}, cwd, input }: CliOptions = {}): CliRun {
  const child = spawn(process.execPath, [MAIN, ...args], {
    env: { ...INHERITED_ENVIRONMENT, ...env },
    stdio: ["pipe", "pipe", "pipe"],
    ...(cwd !== undefined && { cwd }),
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  child.stdin.on("error", () => undefined);
  child.stdin.end(input ?? "");
  return {
    stdout: () => stdout,
    stderr: () => stderr,
    signal: (signal) => child.kill(signal),
    closeStdout: () => child.stdout.destroy(),
    exit: once(child, "close").then(() => child.exitCode ?? child.signalCode),
  };
}

/** What a run printed, and its exit code. */
export interface CliResult {
  readonly code: number | NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs commands of the command line against one server. */
export function cliOf(url: string, environment: NodeJS.ProcessEnv = {}) {
  const env = { INVENTORY_URL: url, ...environment };
  return {
    start: (...args: readonly string[]): CliRun => startCli(args, { env }),
    run: (...args: readonly string[]): Promise<CliResult> => runCli(args, { env }),
    /** With text on standard input. */
    pipe: (input: string | Buffer, ...args: readonly string[]): Promise<CliResult> =>
      runCli(args, { env, input }),
  };
}

/** Runs `inventory ARGS` to its end. */
export async function runCli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  const run = startCli(args, options);
  const code = await run.exit;
  return { code, stdout: run.stdout(), stderr: run.stderr() };
}

/** The documents of JSON lines. */
export function jsonLines(text: string): Record<string, unknown>[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}
