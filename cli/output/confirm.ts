import { createInterface } from "node:readline/promises";
import { usageError } from "../errors.ts";
import { printable } from "./text.ts";

/**
 * Asks before a change that cannot be undone. Resolves with the answer; true without a question if `yes` is set. Throws a
 * usage error if there is no terminal to ask on.
 */
export async function confirm(
  question: string,
  yes: boolean | undefined,
  signal: AbortSignal,
): Promise<boolean> {
  if (yes === true) return true;
  if (!canAsk()) {
    throw usageError(`${printable(question)} Standard input is not a terminal: confirm with --yes`);
  }
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const answer = await lines.question(`${printable(question)} [y/N] `, { signal });
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    lines.close();
  }
}

export function canAsk(): boolean {
  return process.stdin.isTTY === true && process.stderr.isTTY === true;
}
