import { styleText } from "node:util";
import { displayWidth, printable, truncate } from "./text.ts";

/** A column of a table. */
export interface Column<Row> {
  readonly title: string;
  readonly value: (row: Row) => string | number;
  /** Numbers are aligned to the right. */
  readonly align?: "right";
  /** Longer texts are cut. */
  readonly widthMax?: number;
  /** Whether the cell needs attention: it is printed in yellow on a terminal. */
  readonly isNotable?: (row: Row) => boolean;
}

const GAP = "  ";

/**
 * Formats rows as lines of a table. Several calls, such as for the pages of a list, make one table: the first
 * call has the header, and its rows set the widths. A later row that needs more is not cut.
 */
export class Table<Row> {
  readonly #columns: readonly Column<Row>[];
  #widths: readonly number[] = [];

  constructor(columns: readonly Column<Row>[]) {
    this.#columns = columns;
  }

  /** The lines for these rows, each with a line end. */
  format(rows: readonly Row[]): string {
    const cells = rows.map((row) =>
      this.#columns.map(({ value, widthMax }) => {
        const text = printable(String(value(row)));
        return widthMax === undefined ? text : truncate(text, widthMax);
      }),
    );
    const isFirst = this.#widths.length === 0;
    if (isFirst) {
      this.#widths = this.#columns.map(({ title }, index) =>
        cells.reduce((width, line) => Math.max(width, displayWidth(line[index] ?? "")), title.length),
      );
    }
    const header = this.#columns.map(({ title }, index) => styleText("bold", this.#pad(index, title)));
    const lines = cells.map((line, row) =>
      line.map((text, index) => {
        const padded = this.#pad(index, text);
        return this.#columns[index]?.isNotable?.(rows[row] as Row) ? styleText("yellow", padded) : padded;
      }),
    );
    return (isFirst ? [header, ...lines] : lines).map((line) => `${line.join(GAP).trimEnd()}\n`).join("");
  }

  #pad(index: number, text: string): string {
    const space = " ".repeat(Math.max(0, (this.#widths[index] ?? 0) - displayWidth(text)));
    if (this.#columns[index]?.align === "right") return `${space}${text}`;
    return index === this.#columns.length - 1 ? text : `${text}${space}`;
  }
}

/** Formats names with their values, one a line. */
export function formatFields(fields: readonly (readonly [name: string, value: string | number])[]): string {
  const width = Math.max(...fields.map(([name]) => name.length));
  return fields.map(([name, value]) => `${name.padEnd(width)}${GAP}${printable(String(value))}\n`).join("");
}
