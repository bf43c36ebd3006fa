import { join } from "node:path";
import { startApp } from "./app.ts";
import { startupBanner } from "./banner.ts";
import { readCommandLine, UsageError } from "./command-line.ts";
import { ConfigError, readCommitVariable, readConfig, readUnknownVariables } from "./config.ts";
import { exitNow } from "./exit.ts";
import { ListenError } from "./listen-error.ts";
import { readBuildInfo } from "./ops/build-info.ts";
import { openLog } from "./ops/logger.ts";
import { RedisRequirementError } from "./redis/connection/client.ts";
import type { UnknownVariable } from "./unknown-variables.ts";

/** The configuration or the command line is invalid: starting again cannot help. */
const EXIT_INVALID = 2;

let endLog: () => Promise<void> = async () => undefined;

try {
  const readBuild = () => readBuildInfo(join(import.meta.dirname, ".."), readCommitVariable());
  const request = readCommandLine(process.argv.slice(2), readBuild);
  if (request === "serve") {
    await serve();
  } else {
    process.stdout.write(request);
  }
} catch (error) {
  await fail(error);
}

async function serve(): Promise<void> {
  const config = readConfig();
  const { log, end } = openLog(config.logLevel, config.logFormat);
  endLog = end;
  const starting = startApp(config, log);
  stopOnSignal(async (signal) => {
    log.info({ signal }, "Shutting down; a second signal exits at once");
    await (await starting).stop();
    log.info("Shut down");
  });
  const app = await starting;
  for (const variable of readUnknownVariables()) {
    log.warn({ variable: variable.name, meant: variable.meant }, describeUnknown(variable));
  }
  if (config.logFormat !== "json") {
    process.stderr.write(startupBanner(app, config));
  }
}

function describeUnknown({ name, meant }: UnknownVariable): string {
  return `The variable ${name} is unknown and has no effect; did you mean ${meant.join(" or ")}?`;
}

/** Exits with 0 when `stop` has resolved, with 1 if it rejects, and at once at a second signal. */
function stopOnSignal(stop: (signal: NodeJS.Signals) => Promise<void>): void {
  let stopping = false;
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      if (stopping) {
        exitNow(1);
      }
      stopping = true;
      stop(signal).then(() => exit(0), fail);
    });
  }
}

async function fail(error: unknown): Promise<void> {
  process.stderr.write(`${explain(error)}\n`);
  const isInvalid = [ConfigError, UsageError, RedisRequirementError].some((type) => error instanceof type);
  await exit(isInvalid ? EXIT_INVALID : 1);
}

/** Exits once the last lines of the log are written. */
async function exit(code: number): Promise<void> {
  await endLog();
  exitNow(code);
}

function explain(error: unknown): string {
  if (error instanceof ConfigError) {
    const unknown = readUnknownVariables().map((variable) => `\n${describeUnknown(variable)}`);
    return `The configuration is invalid:\n${error.message}${unknown.join("")}`;
  }
  if ([ListenError, RedisRequirementError, UsageError].some((type) => error instanceof type)) {
    return (error as Error).message;
  }
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
