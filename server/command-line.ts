import { parseArgs } from "node:util";
import { VARIABLES } from "./config.ts";
import { type BuildInfo, versionLine } from "./ops/build-info.ts";

/** The arguments are invalid. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** Parses the command line: run the server, or print a text. Throws a `UsageError`. */
export function readCommandLine(args: readonly string[], build: () => BuildInfo): "serve" | string {
  const options = {
    help: { type: "boolean", short: "h" },
    version: { type: "boolean", short: "v" },
  } as const;
  try {
    const { values } = parseArgs({ args: [...args], options });
    if (values.help) return usage(build());
    if (values.version) return `${versionLine(build())}\n`;
    return "serve";
  } catch (error) {
    throw new UsageError(`${(error as Error).message}\n"--help" lists the options and the variables.`);
  }
}

/** The variables that most deployments set; the others are only named. */
const MAIN_VARIABLES: Readonly<Record<string, string>> = {
  HOST: "address to listen on (127.0.0.1)",
  PORT: "port to listen on (8080); 0 takes a free one",
  REDIS_URL:
    "redis://[user:password@]host:port[/db]; unset: the embedded store, which loses its data at exit",
  KAFKA_BROKERS: "host:port,host:port; unset: no events",
  AUTH_TOKENS_FILE: "file of name:role:sha256 lines, the clients that may write; npm run token makes one",
  ADMIN_PORT: "port of /metrics for operators; unset: no metrics",
  LOG_FORMAT: "json, pretty, or auto (auto): pretty on a terminal",
};

function usage(build: BuildInfo): string {
  const main = Object.entries(MAIN_VARIABLES).map(([name, meaning]) => `  ${name.padEnd(18)}${meaning}`);
  const others = VARIABLES.filter((name) => MAIN_VARIABLES[name] === undefined);
  return `${versionLine(build)}

Usage: npm start [-- OPTION]      or: node server/main.ts [OPTION]
Starts the service. SIGTERM and SIGINT stop it after the calls in flight.

Options:
  -h, --help        print this text
  -v, --version     print version and commit

Environment variables (default):
${main.join("\n")}

Others, described in docs/configuration.md:
${wrap(others, 90)}

Exit codes: 0 after a signal, 1 after an error, 2 if the configuration or the command line is invalid.
`;
}

/** Lines of words, indented by two spaces and not longer than `width`. */
function wrap(words: readonly string[], width: number): string {
  const lines: string[] = [];
  for (const word of words) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width) {
      lines[lines.length - 1] = `${last} ${word}`;
    } else {
      lines.push(`  ${word}`);
    }
  }
  return lines.join("\n");
}
