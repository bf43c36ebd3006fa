import { need, type ProgramName } from "../support/programs.ts";
import type { Outcome } from "./outcome.ts";

/** Parameters of a benchmark. */
export interface BenchContext {
  /** Recorded rounds; at least five for figures that are published. */
  readonly rounds: number;
  /** Seconds of each turn. */
  readonly seconds: number;
  /** Aborted to end the benchmark early, such as by Ctrl-C. */
  readonly signal: AbortSignal;
  /** Prints a line beside the table, such as a peer that is left out. */
  readonly note: (line: string) => void;
}

/**
 * Measures on servers that it starts and ends itself. Rejects if it fails, and with `ProgramMissing` if this machine
 * cannot run it.
 */
export type Bench = (context: BenchContext) => Promise<Outcome[]>;

/** A benchmark needs a program that is not installed. */
export class ProgramMissing extends Error {
  override readonly name = "ProgramMissing";
}

/** Throws a `ProgramMissing` with the reason unless the program is there. */
export function requireProgram(name: ProgramName | "own-kafka"): void {
  const { missing } = need(name);
  if (missing) {
    throw new ProgramMissing(missing);
  }
}
