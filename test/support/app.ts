import { mkdtemp, readFile, rm } from "node:fs/promises";
import { get as getHttp } from "node:http";
import { get as getHttps } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Logger, pino } from "pino";
import { type App, type AppOptions, startApp } from "../../server/app.ts";
import { readConfig } from "../../server/config.ts";
import { freePort } from "./free-port.ts";
import { type ServerProcess, startServerProcess } from "./server-process.ts";
import { Hopeless, until } from "./until.ts";

/** Timeout of a start on a busy machine. */
export const START_MS_MAX = 60_000;
const REQUEST_MS_MAX = 2_000;
const MAIN = join(import.meta.dirname, "../../server/main.ts");

/**
 * The environment of every test server: a free port, no demo, and no load shedding by event-loop delay, because the test runs
 * on the same machine, often on the same event loop. `LANE=off npm test` runs everything through the Connect path.
 */
const TEST_ENVIRONMENT = {
  PORT: "0",
  DEMO: "off",
  LOG_FORMAT: "json",
  SHED_DELAY_MS: "0",
  ...(process.env["LANE"] && { LANE: process.env["LANE"] }),
};

/** The variables that a server process inherits. The compile cache halves its start time. */
export const INHERITED_ENVIRONMENT: NodeJS.ProcessEnv = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => ["PATH", "NODE_COMPILE_CACHE"].includes(name)),
);

/** The real app in the test's own process. */
export interface TestApp extends App, AsyncDisposable {
  /** `127.0.0.1:PORT` */
  readonly address: string;
  readonly port: number;
}

/** Starts the app as `main.ts` does, with these environment variables. */
export async function startTestApp(
  environment: NodeJS.ProcessEnv = {},
  options: AppOptions & { readonly log?: Logger } = {},
): Promise<TestApp> {
  const config = readConfig({ ...TEST_ENVIRONMENT, ...environment });
  const app = await startApp(config, options.log ?? pino({ level: "silent" }), options);
  const { host, port } = new URL(app.url);
  return Object.assign(app, {
    address: host,
    port: Number(port),
    [Symbol.asyncDispose]: () => app.stop(),
  });
}

/** The real app in a separate process, which a test may kill. */
export interface AppProcess extends AsyncDisposable {
  readonly url: string;
  readonly address: string;
  readonly port: number;
  readonly process: () => ServerProcess;
  /** Its output so far, of both streams. */
  readonly output: () => Promise<string>;
  readonly kill9: () => Promise<void>;
  /** Starts it again on the same port. */
  readonly restart: () => Promise<void>;
  readonly stop: () => Promise<void>;
}

/** Starts `node server/main.ts` on a free port, and resolves when `/healthz` responds. */
export async function startAppProcess(environment: NodeJS.ProcessEnv = {}): Promise<AppProcess> {
  const dir = await mkdtemp(join(tmpdir(), "inventory-app-"));
  const logFile = join(dir, "app.log");
  const port = Number(environment["PORT"] ?? (await freePort()));
  const scheme = environment["TLS_CERT"] ? "https" : "http";
  const url = `${scheme}://127.0.0.1:${port}`;
  const start = async (): Promise<ServerProcess> => {
    const started = await startServerProcess({
      command: process.execPath,
      args: [MAIN],
      logFile,
      env: { ...INHERITED_ENVIRONMENT, ...TEST_ENVIRONMENT, ...environment, PORT: String(port) },
    });
    await until(
      async () => {
        if (!started.running()) {
          throw new Hopeless(`the server exited: ${started.describe()}`);
        }
        return isAlive(url);
      },
      "the server responds",
      START_MS_MAX,
    );
    return started;
  };
  let running = await start();
  const stop = async (): Promise<void> => {
    await running.end("SIGTERM");
    await rm(dir, { recursive: true, force: true });
  };
  return {
    url,
    address: `127.0.0.1:${port}`,
    port,
    process: () => running,
    output: () => readFile(logFile, "utf8"),
    kill9: () => running.end("SIGKILL"),
    restart: async () => {
      await running.end("SIGKILL");
      running = await start();
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** Requests `/healthz` without verifying the certificate. Rejects if no server listens. */
function isAlive(url: string): Promise<boolean> {
  const get = url.startsWith("https:") ? getHttps : getHttp;
  return new Promise((resolve, reject) => {
    const options = { rejectUnauthorized: false, agent: false, timeout: REQUEST_MS_MAX };
    const request = get(`${url}/healthz`, options, (response) => {
      response.resume();
      response.once("end", () => resolve(response.statusCode === 200));
      response.once("error", reject);
    });
    request.once("timeout", () => request.destroy(new Error(`no response within ${REQUEST_MS_MAX} ms`)));
    request.once("error", reject);
  });
}
