import type { Outcome } from "./outcome.ts";

/** What a bench is given. */
export interface BenchContext {
  /** Recorded rounds; at least five for figures that are to be kept. */
  readonly rounds: number;
  /** Seconds of each turn. */
  readonly seconds: number;
  /** Aborted when the bench is to end, as by Ctrl-C. */
  readonly signal: AbortSignal;
  /** Prints a line beside the table: who was left out, who was the limit. */
  readonly note: (line: string) => void;
}

/** Measures on servers that it starts and ends itself. Rejects where it cannot. */
export type Bench = (context: BenchContext) => Promise<Outcome[]>;
