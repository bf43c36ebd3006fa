import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Logger, pino } from "pino";
import { type App, type AppOptions, startApp } from "../../server/app.ts";
import { readConfig } from "../../server/config.ts";
import { freePort } from "./free-port.ts";
import { type ServerProcess, startServerProcess } from "./server-process.ts";
import { Hopeless, until } from "./until.ts";

const START_MS_MAX = 20_000;
const MAIN = join(import.meta.dirname, "../../server/main.ts");

/** What every test server is started with: a free port, no demo, as the real environment may say otherwise. */
const TEST_ENVIRONMENT = { PORT: "0", DEMO: "off", LOG_FORMAT: "json" };

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

/** The real app as a process of its own, which a test may kill. */
export interface AppProcess extends AsyncDisposable {
  readonly url: string;
  readonly address: string;
  readonly port: number;
  readonly process: () => ServerProcess;
  /** Everything that it has printed so far, both streams. */
  readonly output: () => Promise<string>;
  readonly kill9: () => Promise<void>;
  /** Starts it again on the same port. */
  readonly restart: () => Promise<void>;
  readonly stop: () => Promise<void>;
}

/** Starts `node server/main.ts` on a free port, and returns when `/healthz` answers. */
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
      env: { PATH: process.env["PATH"], ...TEST_ENVIRONMENT, ...environment, PORT: String(port) },
    });
    await until(
      async () => {
        if (!started.running()) {
          throw new Hopeless(`the server ended: ${started.describe()}`);
        }
        return (await readFile(logFile, "utf8")).includes("ready to be asked");
      },
      "the server listens",
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
      // An earlier start's "ready" must not be taken for this one's.
      await rm(logFile, { force: true });
      running = await start();
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}
