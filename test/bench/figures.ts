import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { cacheDir } from "../support/programs.ts";
import { type Line, markdownTable, resultOf, targetText, verdictOf } from "./outcome.ts";

/** The last figures of a row, as they are kept in the cache. */
interface Figures {
  readonly machine: { readonly time: string };
  readonly rounds: number;
  readonly seconds: number;
  readonly lines: readonly Line[];
}

export async function keepFigures(row: string, figures: Figures): Promise<void> {
  await mkdir(join(cacheDir(), "bench"), { recursive: true });
  await writeFile(fileOf(row), `${JSON.stringify(figures, null, 2)}\n`);
}

/** The last figures of the rows, each with the day on which it was measured: the table of docs/benchmarks.md. */
export async function keptTable(rows: readonly string[]): Promise<string> {
  const cells: string[][] = [];
  for (const row of rows) {
    const text = await readFile(fileOf(row), "utf8").catch(() => undefined);
    if (text === undefined) {
      cells.push([`\`${row}\``, "not measured", "", "", "", ""]);
      continue;
    }
    const { machine, rounds, seconds, lines } = JSON.parse(text) as Figures;
    const measured = `${machine.time.slice(0, 16).replace("T", " ")}, ${rounds} × ${seconds} s`;
    cells.push(
      ...lines.map((line) => [
        `\`${row}\``,
        line.what,
        resultOf(line),
        targetText(line),
        verdictOf(line),
        measured,
      ]),
    );
  }
  return markdownTable(["row", "what", "result", "target", "verdict", "measured (UTC)"], cells);
}

function fileOf(row: string): string {
  return join(cacheDir(), "bench", `${row}.json`);
}
