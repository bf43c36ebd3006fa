import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { INHERITED_ENVIRONMENT, START_MS_MAX } from "./app.ts";
import { until } from "./until.ts";

const MAIN = join(import.meta.dirname, "../../server/main.ts");

/** A run of `node server/main.ts`. */
export interface MainRun extends AsyncDisposable {
  readonly stdout: () => string;
  readonly stderr: () => string;
  readonly signal: (signal: NodeJS.Signals) => void;
  /** The exit code, or the name of the signal that ended it. */
  readonly exit: Promise<number | NodeJS.Signals | null>;
}

/** Runs `node server/main.ts` with separate outputs, and does not wait for anything. */
export function startMain(environment: NodeJS.ProcessEnv, ...args: readonly string[]): MainRun {
  const child = spawn(process.execPath, [MAIN, ...args], {
    env: { ...INHERITED_ENVIRONMENT, PORT: "0", DEMO: "off", ...environment },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const exit = once(child, "close").then(() => child.exitCode ?? child.signalCode);
  return {
    stdout: () => stdout,
    stderr: () => stderr,
    signal: (signal) => child.kill(signal),
    exit,
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await exit;
    },
  };
}

/** Resolves when the server accepts connections. */
export async function isListening(main: MainRun): Promise<void> {
  await until(() => main.stdout().includes("Listening on"), "the server listens", START_MS_MAX);
}

/** The lines of a JSON log. */
export function logLines(text: string): Record<string, unknown>[] {
  const lines = text.split("\n").filter((line) => line.startsWith("{"));
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
}
