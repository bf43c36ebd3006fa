import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, fstatSync, openSync, readFileSync } from "node:fs";
import { Socket } from "node:net";
import { basename } from "node:path";

/** A program started by a test. It ends with the test's process, however that ends. */
export interface ServerProcess {
  readonly pid: number;
  /** Whether the program is still running. */
  readonly running: () => boolean;
  /** Sends a signal. Does nothing if the program has ended. */
  readonly signal: (signal: NodeJS.Signals) => void;
  /** Sends a signal, SIGKILL unless given, and waits for the end. Sends SIGKILL after `patienceMs` (30 seconds). */
  readonly end: (signal?: NodeJS.Signals, patienceMs?: number) => Promise<void>;
  /** Its output since this start, or why that cannot be read. */
  readonly log: () => string;
  /** For error messages: how it ended, and the last lines of its log. */
  readonly describe: () => string;
}

export interface ServerCommand {
  readonly command: string;
  readonly args: readonly string[];
  /** Standard output and standard error are appended to this file. */
  readonly logFile: string;
  /** A folder to remove if the test's process dies before it has stopped the program. */
  readonly removeOnCrash?: string | undefined;
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
}

const logTailLines = 25;
const alive = new Map<number, string>();

/**
 * Starts a program in the background. A shell waits on a pipe from this process. If this process ends, even by SIGKILL, the
 * pipe closes and the shell kills the program by its ID. Not covered: the microseconds between the two spawns, and a machine
 * without `sh`. A test file that exits while a program is still running fails and names the program.
 */
export async function startServerProcess(options: ServerCommand): Promise<ServerProcess> {
  const log = openSync(options.logFile, "a");
  const logStart = fstatSync(log).size;
  let child: ChildProcess;
  try {
    child = spawn(options.command, options.args, {
      // A separate process group, so that Ctrl-C reaches only the test, which stops it cleanly.
      detached: true,
      stdio: ["ignore", log, log],
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.env === undefined ? {} : { env: options.env }),
    });
  } finally {
    closeSync(log);
  }
  await once(child, "spawn");
  const pid = child.pid;
  if (pid === undefined) throw new Error(`Cannot start ${options.command}: it has no process ID`);
  const watchdog = startWatchdog(pid, options.removeOnCrash);
  alive.set(pid, basename(options.command));
  reportLeaksAtExit();
  const running = () => child.exitCode === null && child.signalCode === null;
  child.once("exit", () => {
    alive.delete(pid);
    watchdog.kill("SIGKILL");
  });
  child.on("error", () => undefined);
  child.unref();

  async function end(signal: NodeJS.Signals = "SIGKILL", patienceMs = 30_000): Promise<void> {
    if (!running()) return;
    child.ref();
    const exited = once(child, "exit");
    const timer = setTimeout(() => child.kill("SIGKILL"), patienceMs);
    child.kill(signal);
    try {
      await exited;
    } finally {
      clearTimeout(timer);
    }
  }

  return {
    pid,
    running,
    end,
    signal: (signal) => {
      if (running()) child.kill(signal);
    },
    log: () => readFrom(options.logFile, logStart),
    describe: () => {
      const state = running()
        ? "is running"
        : `ended with ${child.signalCode ?? `exit code ${child.exitCode}`}`;
      const tail = readFrom(options.logFile, logStart).trimEnd().split("\n").slice(-logTailLines).join("\n");
      return `${basename(options.command)} (process ${pid}) ${state}; its log ends:\n${tail}`;
    },
  };
}

function readFrom(logFile: string, start: number): string {
  try {
    return readFileSync(logFile).subarray(start).toString();
  } catch (error) {
    return `(no log: ${error instanceof Error ? error.message : String(error)})`;
  }
}

function startWatchdog(pid: number, removeOnCrash: string | undefined): ChildProcess {
  const script = 'read -r _; kill -9 "$1" 2>/dev/null; if [ -n "$2" ]; then sleep 0.2; rm -rf -- "$2"; fi';
  const watchdog = spawn("sh", ["-c", script, "watchdog", String(pid), removeOnCrash ?? ""], {
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
  });
  watchdog.on("error", () => undefined);
  watchdog.unref();
  if (watchdog.stdin instanceof Socket) {
    watchdog.stdin.on("error", () => undefined);
    watchdog.stdin.unref();
  }
  return watchdog;
}

let reporting = false;

function reportLeaksAtExit(): void {
  if (reporting) return;
  reporting = true;
  process.on("exit", (code) => {
    for (const [pid, name] of alive) {
      process.stderr.write(`${name} (process ${pid}) was not stopped by the test that started it\n`);
    }
    if (alive.size > 0 && code === 0) process.exitCode = 1;
  });
}
