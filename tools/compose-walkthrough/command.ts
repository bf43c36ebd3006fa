import { spawn } from "node:child_process";

export interface Outcome {
  /** The exit code; -1 if the program did not start, was killed, or ran out of time. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  /** Written to standard input, which is then closed. */
  readonly input?: string;
  /** 10 minutes unless given. */
  readonly timeoutMs?: number;
  /** Ends the program when it aborts. */
  readonly signal?: AbortSignal | undefined;
}

const TIMEOUT_MS_DEFAULT = 10 * 60_000;

/** Runs a program to its end. It has a process group of its own, so Ctrl-C reaches this process alone. */
export function run(file: string, args: readonly string[], options: CommandOptions = {}): Promise<Outcome> {
  const { env, cwd, input, timeoutMs = TIMEOUT_MS_DEFAULT, signal } = options;
  return new Promise((resolve) => {
    const child = spawn(file, args, { env, cwd, detached: true, stdio: ["pipe", "pipe", "pipe"] });
    const end = (): void => {
      if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, "SIGKILL");
    };
    const timer = setTimeout(end, timeoutMs);
    signal?.addEventListener("abort", end, { once: true });
    let [stdout, stderr] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    const settle = (code: number): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve({ code, stdout, stderr });
    };
    child.once("error", (error) => {
      stderr += error.message;
      settle(-1);
    });
    child.once("close", (code) => settle(code ?? -1));
    child.stdin.on("error", () => undefined).end(input ?? "");
  });
}

/** As `run`; rejects with the end of the program's output if it fails. Resolves with its standard output, trimmed. */
export async function mustRun(
  file: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<string> {
  const { code, stdout, stderr } = await run(file, args, options);
  if (code !== 0) {
    const output = `${stdout}\n${stderr}`.trim().split("\n").slice(-25).join("\n");
    throw new Error(`${[file, ...args].join(" ")} ended with ${code}:\n${output}`);
  }
  return stdout.trim();
}
