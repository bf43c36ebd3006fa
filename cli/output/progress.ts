import { plural } from "./text.ts";

/** Progress of long work. */
export interface Progress {
  /** Rows processed so far. */
  readonly rows: number;
  readonly failed: number;
  /** 0 to 1. Absent if the total is unknown, as for standard input. */
  readonly fraction: number | undefined;
}

const BAR_WIDTH = 24;
/** Interval between two updates of the bar, ms. */
const BAR_MS = 100;
/** Interval between two lines where there is no terminal, ms. */
const LINE_MS = 5_000;

/** Shows progress on standard error: a bar on a terminal, a line every 5 seconds elsewhere. */
export class ProgressReporter {
  readonly #verb: string;
  readonly #isTerminal = process.stderr.isTTY === true;
  readonly #startMs = performance.now();
  #firstRows: number | undefined;
  #shownMs = performance.now();
  #barShown = false;

  /** `verb` begins each line: "imported". */
  constructor(verb: string) {
    this.#verb = verb;
  }

  update(progress: Progress): void {
    this.#firstRows ??= progress.rows;
    const now = performance.now();
    if (now - this.#shownMs < (this.#isTerminal ? BAR_MS : LINE_MS)) return;
    this.#shownMs = now;
    const text = this.#describe(progress, (now - this.#startMs) / 1_000);
    if (this.#isTerminal) {
      process.stderr.write(`\r\x1b[K${text}`);
      this.#barShown = true;
    } else {
      process.stderr.write(`${text}\n`);
    }
  }

  /** Removes the bar, so that other lines can follow. */
  clear(): void {
    if (this.#barShown) process.stderr.write("\r\x1b[K");
    this.#barShown = false;
  }

  #describe({ rows, failed, fraction }: Progress, seconds: number): string {
    const rate = (rows - (this.#firstRows ?? 0)) / seconds;
    const parts = [
      `${this.#verb} ${plural(rows, "row")}`,
      `${Math.round(rate).toLocaleString("en-US")} a second`,
    ];
    if (failed > 0) parts.push(`${failed.toLocaleString("en-US")} failed`);
    if (fraction === undefined) return parts.join(", ");
    const filled = Math.round(fraction * BAR_WIDTH);
    const percent = `${Math.floor(fraction * 100)}%`.padStart(4);
    if (fraction > 0.01) parts.push(`${Math.ceil((seconds / fraction) * (1 - fraction))} s left`);
    const bar = this.#isTerminal ? `[${"#".repeat(filled)}${"-".repeat(BAR_WIDTH - filled)}] ` : "";
    return `${bar}${percent}  ${parts.join(", ")}`;
  }
}
