import { createInterface } from "node:readline/promises";
import { CommandError, EXIT, usageError } from "../errors.ts";
import { printable } from "./text.ts";

/**
 * Asks before a change that cannot be undone. Resolves with the answer; true without a question if `yes` is set. Throws a
 * usage error if there is no terminal to ask on, and an error with the exit code of SIGINT at Ctrl-C.
 */
export async function confirm(question: string, yes: boolean | undefined): Promise<boolean> {
  if (yes === true) return true;
  if (!canAsk()) {
    throw usageError(`${printable(question)} Standard input is not a terminal: confirm with --yes`);
  }
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  // The terminal is in raw mode, in which Ctrl-C sends no signal.
  const interrupted = new Promise<never>((_, reject) => {
    lines.once("SIGINT", () =>
      reject(new CommandError("Interrupted; nothing was changed", EXIT.interrupted)),
    );
  });
  try {
    const answer = await Promise.race([lines.question(`${printable(question)} [y/N] `), interrupted]);
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    lines.close();
  }
}

export function canAsk(): boolean {
  return process.stdin.isTTY === true && process.stderr.isTTY === true;
}
