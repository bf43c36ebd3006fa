import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "./free-port.ts";
import { need, type REDIS_SERVERS } from "./programs.ts";
import { type ServerProcess, startServerProcess } from "./server-process.ts";
import { Hopeless, until } from "./until.ts";

export interface RedisOptions {
  /** Which server; by default the one that REDIS_SERVER names, else the system's. */
  readonly server?: (typeof REDIS_SERVERS)[number];
  /** `yes` unless given. */
  readonly appendonly?: "yes" | "no";
  /** `always` unless given, as the service recommends it. */
  readonly appendfsync?: "always" | "everysec";
  /** A free one unless given. */
  readonly port?: number;
  /** A temporary folder unless given. A given one is not removed when the server stops. */
  readonly dir?: string;
  /** Files by name, written to the folder before the first start. */
  readonly files?: Readonly<Record<string, string>>;
  /** Further arguments, such as `["--maxmemory", "10mb"]`. */
  readonly args?: readonly string[];
}

/** A real redis-server on loopback. It keeps its port and folder over `kill9` and `restart`. */
export interface RedisServer extends AsyncDisposable {
  readonly host: "127.0.0.1";
  readonly port: number;
  /** `redis://127.0.0.1:PORT` */
  readonly url: string;
  readonly dir: string;
  /** The ID of the running process, or of the last one. */
  readonly pid: number;
  /** Kills the process with SIGKILL, like a crash: nothing is flushed. */
  readonly kill9: () => Promise<void>;
  /** Starts it again with the same port and folder, so that it replays its append-only file. Kills a running process first. */
  readonly restart: () => Promise<void>;
  /** Freezes the process (SIGSTOP): connections stay open without a response. */
  readonly pause: () => void;
  readonly resume: () => void;
  /** Ends the process and removes its temporary folder. May be called again. */
  readonly stop: () => Promise<void>;
}

const startTimeoutMs = 30_000;
const portAttemptsMax = 5;
/** After kill -9 the port may stay in use for a moment. */
const restartAttemptsMax = 20;

class PortTaken extends Hopeless {}

/** Starts a redis-server and resolves when it responds, in about 20 ms. Snapshots are off (`save ""`). */
export async function startRedis(options: RedisOptions = {}): Promise<RedisServer> {
  const program = need(options.server ?? "redis-server");
  if (program.missing) throw new Error(`Cannot start Redis: ${program.missing}`);
  const temporaryDir =
    options.dir === undefined ? await mkdtemp(join(tmpdir(), "inventory-redis-")) : undefined;
  const dir = options.dir ?? temporaryDir ?? "";
  for (const [name, text] of Object.entries(options.files ?? {})) await writeFile(join(dir, name), text);

  function start(port: number): Promise<ServerProcess> {
    const settings = {
      port: String(port),
      bind: "127.0.0.1",
      save: "",
      appendonly: options.appendonly ?? "yes",
      appendfsync: options.appendfsync ?? "always",
      dir,
      daemonize: "no",
    };
    const args = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]);
    return startAndAwait(program.path, [...args, ...(options.args ?? [])], port, dir, temporaryDir);
  }

  let port = options.port ?? (await freePort());
  let server: ServerProcess;
  for (let attempt = 1; ; attempt++) {
    try {
      server = await start(port);
      break;
    } catch (error) {
      const another = options.port === undefined && error instanceof PortTaken && attempt < portAttemptsMax;
      if (!another) {
        if (temporaryDir !== undefined) await rm(temporaryDir, { recursive: true, force: true });
        throw error;
      }
      port = await freePort();
    }
  }

  async function restart(): Promise<void> {
    await server.end();
    for (let attempt = 1; ; attempt++) {
      try {
        server = await start(port);
        return;
      } catch (error) {
        if (!(error instanceof PortTaken) || attempt === restartAttemptsMax) throw error;
      }
    }
  }

  async function stop(): Promise<void> {
    await server.end();
    if (temporaryDir !== undefined) await rm(temporaryDir, { recursive: true, force: true });
  }

  return {
    host: "127.0.0.1",
    port,
    url: `redis://127.0.0.1:${port}`,
    dir,
    get pid() {
      return server.pid;
    },
    kill9: () => server.end("SIGKILL"),
    restart,
    pause: () => server.signal("SIGSTOP"),
    resume: () => server.signal("SIGCONT"),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

async function startAndAwait(
  command: string,
  args: readonly string[],
  port: number,
  dir: string,
  removeOnCrash: string | undefined,
): Promise<ServerProcess> {
  const server = await startServerProcess({ command, args, logFile: join(dir, "redis.log"), removeOnCrash });
  try {
    await until(
      async () => {
        if (server.running()) return isOwnAnswer(await ask(port, "PING\r\nINFO server\r\n"), server.pid);
        const message = `Redis has not started: ${server.describe()}`;
        throw /address already in use/i.test(server.log()) ? new PortTaken(message) : new Hopeless(message);
      },
      `Redis answers on port ${port}`,
      startTimeoutMs,
    );
    return server;
  } catch (error) {
    await server.end();
    throw error;
  }
}

/** With a password, the process that responds cannot be identified; then any response counts. */
function isOwnAnswer(reply: string, pid: number): boolean {
  if (reply.startsWith("-NOAUTH")) return true;
  return reply.startsWith("+PONG") && reply.includes(`process_id:${pid}\r\n`);
}

/** Sends inline commands on a new connection, and returns the replies up to the one that identifies the server or is an error. */
function ask(port: number, commands: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let reply = "";
    const socket = connect({ port, host: "127.0.0.1" }, () => socket.write(commands));
    socket.setEncoding("utf8");
    socket.setTimeout(2_000, () => socket.destroy(new Error("no answer within 2 seconds")));
    socket.on("data", (text: string) => {
      reply += text;
      if (reply.startsWith("-") || /process_id:\d+\r\n/.test(reply)) socket.destroy();
    });
    socket.once("error", reject);
    socket.once("close", () => resolve(reply));
  });
}
