import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { addCorrections } from "./commands/corrections.ts";
import { addOrders } from "./commands/orders.ts";
import { addProducts } from "./commands/products.ts";
import { addReads } from "./commands/reads.ts";
import { addTransfer } from "./commands/transfer.ts";
import { addWatch } from "./commands/watch.ts";
import { CommandError, EXIT } from "./errors.ts";
import { exitOnBrokenPipe } from "./output/output.ts";

/** Runs the command that the arguments of the process name, and sets the exit code. */
export async function runProgram(): Promise<void> {
  exitOnBrokenPipe();
  try {
    await createProgram().parseAsync();
  } catch (error) {
    if (error instanceof CommanderError) {
      // Commander has printed the help, or the error with its suggestion.
      process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    } else if (error instanceof CommandError) {
      process.stderr.write(`error: ${error.message}\n`);
      process.exitCode = error.exitCode;
    } else {
      throw error;
    }
  }
}

/** The command line with all its commands. */
export function createProgram(): Command {
  const program = new Command("inventory")
    .description(
      "Works with the inventory service through its API: stock, ledgers, orders, corrections, import and export.",
    )
    .version(readVersion())
    .showHelpAfterError(
      '"inventory --help" lists the commands, "inventory COMMAND --help" the options of one.',
    )
    .addHelpText(
      "after",
      `
Exit codes: 0 success, 1 refused or failed, 2 invalid arguments or no confirmation, 3 unavailable,
4 not authenticated or not allowed, 130 interrupted. More in docs/command-line.md.
`,
    )
    .exitOverride();
  program.commandsGroup("Read:");
  addReads(program);
  addWatch(program);
  program.commandsGroup("Orders:");
  addOrders(program);
  program.commandsGroup("Files:");
  addTransfer(program);
  program.commandsGroup("Change:");
  addCorrections(program);
  addProducts(program);
  return program;
}

function readVersion(): string {
  const text = readFileSync(new URL("../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}
