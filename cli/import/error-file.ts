import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { CommandError } from "../errors.ts";
import { csvRecord } from "../files/csv-writer.ts";
import type { FileFormat } from "../files/format.ts";
import { ERROR_COLUMNS } from "./csv-rows.ts";
import type { Row, RowFault } from "./rows.ts";

/**
 * The file of failed rows (`--errors`): the rows as they were, each with its error. Once fixed it can be imported; the errors
 * may stay in it.
 */
export class ErrorFile {
  readonly #descriptor: number;
  readonly #format: FileFormat;
  readonly #header: () => readonly string[];
  #bytes: number;

  /** Continues an existing file at `bytes`, or begins a new one at 0. */
  constructor(path: string, format: FileFormat, header: () => readonly string[], bytes: number) {
    this.#format = format;
    this.#header = header;
    this.#bytes = bytes;
    try {
      this.#descriptor = openSync(path, bytes === 0 ? "w" : "r+");
      if (bytes > 0) ftruncateSync(this.#descriptor, bytes);
    } catch (error) {
      throw new CommandError(`--errors: ${(error as Error).message}`);
    }
  }

  get bytes(): number {
    return this.#bytes;
  }

  write(row: Row, fault: RowFault): void {
    if (this.#format === "jsonl") {
      this.#append(`${jsonLine(row, fault)}\n`);
      return;
    }
    const header = this.#header();
    const kept = header.map((column) => !(ERROR_COLUMNS as readonly string[]).includes(column));
    if (this.#bytes === 0)
      this.#append(csvRecord([...header.filter((_, index) => kept[index]), ...ERROR_COLUMNS]));
    // A row that is not CSV is written as it was; the error columns may be omitted.
    this.#append(
      row.cells === undefined
        ? `${row.raw}\r\n`
        : csvRecord([
            ...row.cells.filter((_, index) => kept[index] !== false),
            String(fault.line),
            fault.column,
            fault.reason,
          ]),
    );
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  #append(text: string): void {
    this.#bytes += writeSync(this.#descriptor, text, this.#bytes);
  }
}

function jsonLine({ raw }: Row, error: RowFault): string {
  try {
    const fields: unknown = JSON.parse(raw);
    if (typeof fields === "object" && fields !== null && !Array.isArray(fields)) {
      return JSON.stringify({ ...fields, error });
    }
  } catch {
    // Not JSON: the line as it was.
  }
  return raw;
}
