import type { Command } from "commander";
import { CommandError, describeError, EXIT, type ExitCode, exitCodeOf } from "./errors.ts";
import { openSession, type Session } from "./session.ts";
import { type ConnectionOptions, readSettings, URL_DEFAULT, VARIABLES } from "./settings.ts";

/** What `defineCommand` needs besides arguments and options. */
interface Definition {
  /** As commander takes it: `count <product> <units>`. */
  readonly usage: string;
  readonly summary: string;
  /** More than the summary, for --help. */
  readonly description?: string;
  /** Commands to paste, for --help. They run against the demo shop. */
  readonly examples: readonly string[];
}

/** Runs a command with its arguments and options. Resolves with an exit code, or nothing for 0. */
type Run<Arguments extends readonly unknown[], Options> = (
  session: Session,
  options: Options,
  ...args: Arguments
) => Promise<ExitCode | undefined>;

/**
 * Adds a command with the options that every command has. `configure` adds its own arguments and options. `Arguments` and
 * `Options` are the types that their parsers make: commander does not infer them.
 */
export function defineCommand<Arguments extends readonly unknown[], Options = unknown>(
  program: Command,
  { usage, summary, description, examples }: Definition,
  configure: (command: Command) => Command,
  run: Run<Arguments, Options>,
): void {
  const command = configure(
    program
      .command(usage)
      .summary(summary)
      .description(description === undefined ? summary : `${summary}\n\n${description}`)
      .optionsGroup("Options:"),
  );
  addConnectionOptions(command);
  command.addHelpText("after", `\nExamples:\n${examples.map((example) => `  ${example}\n`).join("")}`);
  command.action(async (...given: unknown[]) => {
    const options = command.opts<ConnectionOptions & Options>();
    const settings = readSettings(options);
    using session = openSession(settings, options.json === true);
    try {
      const code = await run(session, options, ...(given.slice(0, -2) as unknown as Arguments));
      process.exitCode = code ?? EXIT.ok;
    } catch (error) {
      throw new CommandError(describeError(error, settings.url), exitCodeOf(error));
    } finally {
      if (session.isStale()) {
        session.output.warn("these counts may be out of date: the server does not reach its store");
      }
    }
  });
}

function addConnectionOptions(command: Command): void {
  command
    .option("--json", "print JSON for scripts instead of a table")
    .optionsGroup("Connection options:")
    .option("--url <url>", `address of the server (${VARIABLES.url}; ${URL_DEFAULT})`)
    .option("--token <token>", `bearer token; other users of the machine can see it (${VARIABLES.token})`)
    .option("--token-file <file>", `file with the bearer token (${VARIABLES.tokenFile})`)
    .option("--ca-file <file>", `PEM file of the CA of the server's certificate (${VARIABLES.caFile})`)
    .option("--cert-file <file>", `PEM file of the client certificate (${VARIABLES.certFile})`)
    .option("--key-file <file>", `PEM file of its key (${VARIABLES.keyFile})`)
    .option("--timeout <seconds>", `longest time of one call (${VARIABLES.timeout}; 10)`);
}
