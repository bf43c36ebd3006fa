import { startApp } from "./app.ts";
import { startupBanner } from "./banner.ts";
import { ConfigError, readConfig } from "./config.ts";
import { openLog } from "./ops/logger.ts";
import { RedisRequirementError } from "./redis/client.ts";

const EXIT_BAD_CONFIG = 2;

let endLog: () => Promise<void> = async () => undefined;

try {
  const config = readConfig();
  const { log, end } = openLog(config.logLevel, config.logFormat);
  endLog = end;
  const app = await startApp(config, log);
  log.info({ url: app.url, ...app.runsOn }, "The inventory service is ready to be asked");
  process.stderr.write(startupBanner(app, config));
  stopOnSignal(async (signal) => {
    log.info({ signal }, "Shutting down; a second signal ends at once");
    await app.stop();
    log.info("Shut down");
  });
} catch (error) {
  await fail(error);
}

/** Ends the process with 0 when `stop` is done, with 1 if it fails, and at once at a second signal. */
function stopOnSignal(stop: (signal: NodeJS.Signals) => Promise<void>): void {
  let stopping = false;
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      if (stopping) {
        process.exit(1);
      }
      stopping = true;
      stop(signal).then(() => exit(0), fail);
    });
  }
}

async function fail(error: unknown): Promise<void> {
  process.stderr.write(`${explain(error)}\n`);
  await exit(error instanceof ConfigError || error instanceof RedisRequirementError ? EXIT_BAD_CONFIG : 1);
}

/** Ends the process once the log's last lines are out. */
async function exit(code: number): Promise<void> {
  await endLog();
  process.exit(code);
}

function explain(error: unknown): string {
  if (error instanceof ConfigError) {
    return `The configuration has faults:\n${error.message}`;
  }
  if (error instanceof RedisRequirementError) {
    return error.message;
  }
  if (error instanceof Error && "syscall" in error && error.syscall === "listen") {
    return `Cannot listen on HOST and PORT as they are set: ${error.message}`;
  }
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
