import { execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { connect } from "node:net";
import { availableParallelism, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { freePort } from "../support/free-port.ts";
import { findProgram } from "../support/programs.ts";
import { type RedisOptions, type RedisServer, startRedis } from "../support/redis-server.ts";
import { type ServerProcess, startServerProcess } from "../support/server-process.ts";
import { Hopeless, until } from "../support/until.ts";

const START_MS_MAX = 300_000;
const STOP_MS_MAX = 15_000;
const MAIN = join(import.meta.dirname, "../../server/main.ts");
/** Linux reports CPU time in hundredths of a second, whatever the tick of the kernel. */
const TICKS_PER_SECOND = 100;
const run = promisify(execFile);

/**
 * The server under test and its peers run on core 0; load generators, Redis and the broker share core 1.
 * `undefined` with a single core or without `taskset`: then nothing is pinned.
 */
export const CORES =
  findProgram("taskset") && availableParallelism() > 1 ? { server: 0, load: 1 } : undefined;

/** Something whose CPU time is measured: a server or several. */
export interface CpuMeter {
  /** CPU seconds used by all its threads; `undefined` without /proc. */
  readonly cpuSeconds: () => Promise<number | undefined>;
}

/** A server under test: this service or a peer. */
export interface Contestant extends CpuMeter, AsyncDisposable {
  readonly pid: number;
  /** Where it listens, `http://127.0.0.1:PORT`. */
  readonly url: string;
  /** Time from its start until it was ready, ms. */
  readonly startMs: number;
  /** Its output. */
  readonly output: () => string;
  /** Bytes of memory after a garbage collection. Node only. */
  readonly memoryBytes: () => Promise<number>;
}

interface ContestantCommand {
  readonly command: string;
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** Unless given, the server is ready when its port accepts connections. */
  readonly isReady?: (url: string) => Promise<boolean>;
  /** On the server's core unless false. */
  readonly pinned?: boolean;
}

/** This service like `npm start`, without logs and demo, on a Redis. */
export function startService(redis: RedisServer, env: NodeJS.ProcessEnv = {}): Promise<Contestant> {
  return startServiceWith({ REDIS_URL: redis.url, ...env });
}

/** This service on a Redis that the environment names. */
export function startServiceWith(env: NodeJS.ProcessEnv): Promise<Contestant> {
  return startContestant({
    command: process.execPath,
    args: [...NODE_ARGS, ...PROFILE_ARGS, MAIN],
    env: {
      // No load shedding: the benchmark measures the maximum rate.
      SHED_DELAY_MS: "0",
      HOST: "127.0.0.1",
      DEMO: "off",
      LOG_LEVEL: "warn",
      LOG_FORMAT: "json",
      ...env,
    },
    isReady: async (url) => (await fetch(`${url}/readyz`)).ok,
  });
}

/** A Node peer in peers/. It listens on PORT, and is ready when that accepts connections, unless `isReady` is given. */
export function startNodePeer(
  file: string,
  env: NodeJS.ProcessEnv = {},
  isReady = takesConnections,
): Promise<Contestant> {
  return startContestant({
    command: process.execPath,
    args: [...NODE_ARGS, join(import.meta.dirname, "peers", file)],
    env,
    isReady,
  });
}

/** Address of the inspector, which is opened later to collect garbage and read the memory. */
const NODE_ARGS = ["--inspect-port=127.0.0.1:0"];

/** With BENCH_PROFILE=DIR each process of the service writes a CPU profile there, for Chromium's developer tools. */
const { BENCH_PROFILE } = process.env;
const PROFILE_ARGS = BENCH_PROFILE ? ["--cpu-prof", `--cpu-prof-dir=${resolve(BENCH_PROFILE)}`] : [];

/** Starts a server on a free port, on the server's core unless `pinned` is false. */
export async function startContestant(options: ContestantCommand): Promise<Contestant> {
  const dir = await mkdtemp(join(tmpdir(), "inventory-bench-"));
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const whole = [options.command, ...options.args];
  const [command = "", ...args] = options.pinned === false ? whole : pinned("server", whole);
  const startedAt = performance.now();
  const server = await startServerProcess({
    command,
    args,
    logFile: join(dir, "log"),
    removeOnCrash: dir,
    env: { PATH: process.env["PATH"], ...options.env, PORT: String(port) },
  });
  const stop = async (): Promise<void> => {
    await server.end("SIGTERM", STOP_MS_MAX);
    await rm(dir, { recursive: true, force: true });
  };
  const isReady = options.isReady ?? takesConnections;
  try {
    await until(
      async () => {
        if (!server.running()) {
          throw new Hopeless(`The server exited: ${server.describe()}`);
        }
        return isReady(url);
      },
      `${options.args.at(-1) ?? options.command} is ready`,
      START_MS_MAX,
    );
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    pid: server.pid,
    url,
    startMs: performance.now() - startedAt,
    cpuSeconds: () => cpuSecondsOf(server.pid),
    output: server.log,
    memoryBytes: () => memoryBytesOf(server),
    [Symbol.asyncDispose]: stop,
  };
}

/** A separate Redis for each row, on the core of the load generator, with the recommended durability. */
export async function startPinnedRedis(options: RedisOptions = {}): Promise<RedisServer> {
  const redis = await startRedis(options);
  await pin("load", redis.pid);
  return redis;
}

/** The CPU time of a Redis, like a contestant's. */
export function cpuOf(redis: RedisServer): CpuMeter {
  return { cpuSeconds: () => cpuSecondsOf(redis.pid) };
}

/** A command that runs on one core. */
export function pinned(role: "server" | "load", command: readonly string[]): string[] {
  return CORES === undefined ? [...command] : ["taskset", "-c", String(CORES[role]), ...command];
}

/** Pins a running process, and all its threads, to a core. */
export async function pin(role: "server" | "load", pid: number): Promise<void> {
  if (CORES !== undefined) {
    await run("taskset", ["-a", "-c", "-p", String(CORES[role]), String(pid)]);
  }
}

/** The output of a program, and its CPU time. */
export interface Finished {
  readonly output: string;
  readonly seconds: number;
  readonly cpuSeconds: number;
}

/** Runs a load generator until it ends, on its core unless `pinned` is false. Rejects with its output if it fails. */
export async function runLoad(
  command: readonly string[],
  signal: AbortSignal,
  options: { readonly pinned: boolean } = { pinned: true },
): Promise<Finished> {
  const startedAt = performance.now();
  const args = options.pinned ? pinned("load", command) : command;
  // The shell's `times` reports the CPU time of its children.
  const child = spawn("sh", ["-c", '"$@" && times', "sh", ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    signal,
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  }
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  if (code !== 0) {
    throw new Error(`${command[0]} exited with ${code}:\n${output.slice(-2_000)}`);
  }
  const times = [...output.matchAll(/(\d+)m([\d.]+)s/g)].slice(-2);
  return {
    output,
    seconds: (performance.now() - startedAt) / 1_000,
    cpuSeconds: times.reduce((sum, [, minutes, seconds]) => sum + Number(minutes) * 60 + Number(seconds), 0),
  };
}

/** Runs an action, and measures the share of a core that the server, or several together, used meanwhile. */
export async function whileWatching<T>(
  server: CpuMeter,
  action: () => Promise<T>,
): Promise<{ readonly result: T; readonly serverBusy: number | undefined }> {
  const [before, startedAt] = [await server.cpuSeconds(), performance.now()];
  const result = await action();
  const [after, seconds] = [await server.cpuSeconds(), (performance.now() - startedAt) / 1_000];
  return {
    result,
    serverBusy: before === undefined || after === undefined ? undefined : (after - before) / seconds,
  };
}

/** CPU seconds of a process with all its threads; `undefined` without /proc. */
export async function cpuSecondsOf(pid: number): Promise<number | undefined> {
  return (await statOf(pid))?.own;
}

/** Several servers as one, whose CPU time is the sum of theirs. */
export function together(...servers: readonly CpuMeter[]): CpuMeter {
  return {
    cpuSeconds: async (): Promise<number | undefined> => {
      const all = await Promise.all(servers.map(({ cpuSeconds }) => cpuSeconds()));
      return all.reduce<number | undefined>(
        (sum, seconds) => (sum === undefined || seconds === undefined ? undefined : sum + seconds),
        0,
      );
    },
  };
}

/** CPU seconds of a process and all its descendants, including those that have ended; `undefined` without /proc. */
export async function cpuSecondsOfTree(root: number): Promise<number | undefined> {
  const pids = existsSync("/proc") ? (await readdir("/proc")).map(Number).filter((pid) => pid > 0) : [];
  const stats = new Map<number, ProcessStat>();
  for (const pid of pids) {
    const stat = await statOf(pid).catch(() => undefined);
    if (stat !== undefined) {
      stats.set(pid, stat);
    }
  }
  const isBelow = (pid: number): boolean => pid === root || (pid > 1 && isBelow(stats.get(pid)?.parent ?? 0));
  const tree = [...stats].filter(([pid]) => isBelow(pid));
  return tree.length === 0 ? undefined : tree.reduce((sum, [, stat]) => sum + stat.own + stat.ended, 0);
}

interface ProcessStat {
  readonly parent: number;
  /** CPU seconds of its threads. */
  readonly own: number;
  /** CPU seconds of its children that have ended. */
  readonly ended: number;
}

async function statOf(pid: number): Promise<ProcessStat | undefined> {
  const file = `/proc/${pid}/stat`;
  if (!existsSync(file)) {
    return undefined;
  }
  const text = await readFile(file, "utf8");
  // The second field is the command in parentheses, which may contain spaces.
  const fields = text
    .slice(text.lastIndexOf(")") + 2)
    .split(" ")
    .map(Number);
  const seconds = (at: number): number => ((fields[at] ?? 0) + (fields[at + 1] ?? 0)) / TICKS_PER_SECOND;
  return { parent: fields[1] ?? 0, own: seconds(11), ended: seconds(13) };
}

/** Collects the garbage of a Node process through its inspector, and reads its memory. */
async function memoryBytesOf(server: ServerProcess): Promise<number> {
  server.signal("SIGUSR1");
  const address = await until(
    () => /Debugger listening on (ws:\S+)/.exec(server.log())?.[1],
    "the inspector listens",
  );
  const socket = new WebSocket(address);
  await new Promise((resolve, reject) => {
    socket.addEventListener("open", resolve, { once: true });
    socket.addEventListener("error", () => reject(new Error("The inspector cannot be reached")), {
      once: true,
    });
  });
  try {
    // Twice: the second collection frees what the first has finalized.
    for (const id of [1, 2]) {
      const answered = new Promise((resolve) => socket.addEventListener("message", resolve, { once: true }));
      socket.send(JSON.stringify({ id, method: "HeapProfiler.collectGarbage" }));
      await answered;
    }
  } finally {
    socket.close();
  }
  const status = await readFile(`/proc/${server.pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1_024;
}

function takesConnections(url: string): Promise<boolean> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve) => {
    const socket = connect(Number(port), hostname, () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
