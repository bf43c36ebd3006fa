import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { CommandError } from "../errors.ts";
import { csvRecord } from "../files/csv-writer.ts";
import type { FileFormat } from "../files/format.ts";
import { ERROR_COLUMNS, isErrorColumn } from "./csv-rows.ts";
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
    const isKept = (_: string, index: number): boolean => !isErrorColumn(header[index]);
    if (this.#bytes === 0) this.#append(csvRecord([...ERROR_COLUMNS, ...header.filter(isKept)]));
    const error = [String(fault.line), fault.column, fault.reason];
    if (row.cells !== undefined) {
      this.#append(csvRecord([...error, ...row.cells.filter(isKept)]));
    } else {
      // A row that is not CSV is written as it was. That of an earlier file of failed rows has its error.
      const isFromErrorFile = header.some(isErrorColumn);
      this.#append(isFromErrorFile ? `${row.raw}\r\n` : `${csvRecord(error).trimEnd()},${row.raw}\r\n`);
    }
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
