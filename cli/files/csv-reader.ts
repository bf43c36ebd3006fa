/** A record of a CSV file, or why it cannot be read. */
export interface CsvRecord {
  /** The line on which it begins, from 1. */
  readonly line: number;
  readonly cells: readonly string[];
  /** Its text in the file, without the line end. */
  readonly raw: string;
  readonly fault?: { readonly line: number; readonly cell: number; readonly reason: string };
}

/** Longest record, characters. Bounds the memory that a quote without its end takes. */
export const RECORD_LENGTH_MAX = 262_144;
const QUOTE = '"';

/** Where one cell ends, or that more text is needed to know. */
type CellEnd =
  | { readonly value: string; readonly end: number }
  | "incomplete"
  | { readonly reason: string; readonly at: number };

/** A record and where the next one begins. */
type ReadRecord = CsvRecord & { readonly next: number };

interface Fault {
  /** Where in the text. */
  readonly at: number;
  readonly cell: number;
  readonly reason: string;
}

/**
 * Reads CSV as RFC 4180 defines it: quoted cells may hold separators, line ends and doubled quotes. Lines end with LF or CRLF;
 * empty lines are skipped. A record that breaks the format is returned with the fault, and reading continues on the line
 * after the one on which it began, so that the good records after it are not lost. Own code: the libraries lose them
 * (docs/decisions/0027-the-command-line.md).
 */
export class CsvReader {
  readonly #separator: string;
  #rest = "";
  /** The line on which `#rest` begins. */
  #line = 1;
  /** Whether the text up to the next line end belongs to a line that has been reported as too long. */
  #isSkippingLine = false;

  constructor(separator = ",") {
    this.#separator = separator;
  }

  /** Takes more text. Returns the records that it completes. */
  push(text: string): CsvRecord[] {
    this.#rest += this.#withoutSkippedLine(text);
    return this.#read(false);
  }

  /** Returns the records after the last line end. */
  end(): CsvRecord[] {
    return this.#read(true);
  }

  #withoutSkippedLine(text: string): string {
    if (!this.#isSkippingLine) return text;
    const lineFeed = text.indexOf("\n");
    if (lineFeed < 0) return "";
    this.#isSkippingLine = false;
    this.#line += 1;
    return text.slice(lineFeed + 1);
  }

  #read(isEnd: boolean): CsvRecord[] {
    const records: CsvRecord[] = [];
    let start = 0;
    while (start < this.#rest.length) {
      const record = this.#readRecord(start, isEnd);
      if (record === undefined) break;
      const { next, ...fields } = record;
      // An empty line has one empty cell.
      if (fields.raw !== "") records.push(fields);
      this.#line += countLineEnds(this.#rest, start, next);
      start = next;
    }
    this.#rest = this.#rest.slice(start);
    return records;
  }

  /** The record at `start` and the start of the next one; `undefined` if it is not complete. */
  #readRecord(start: number, isEnd: boolean): ReadRecord | undefined {
    const text = this.#rest;
    const cells: string[] = [];
    let position = start;
    for (;;) {
      const cell = this.#readCell(position, isEnd);
      if (cell === "incomplete") {
        if (text.length - start <= RECORD_LENGTH_MAX) return undefined;
        const reason = `is longer than ${RECORD_LENGTH_MAX} characters; a closing quote may be missing`;
        return this.#faulty(start, { at: position, cell: cells.length, reason }, isEnd);
      }
      if ("reason" in cell) return this.#faulty(start, { ...cell, cell: cells.length }, isEnd);
      cells.push(cell.value);
      if (text[cell.end] === this.#separator) {
        position = cell.end + 1;
        continue;
      }
      const raw = text.slice(start, cell.end);
      return { line: this.#line, cells, raw, next: afterLineEnd(text, cell.end) };
    }
  }

  #readCell(start: number, isEnd: boolean): CellEnd {
    return this.#rest[start] === QUOTE ? this.#readQuoted(start, isEnd) : this.#readPlain(start, isEnd);
  }

  #readPlain(start: number, isEnd: boolean): CellEnd {
    const text = this.#rest;
    for (let at = start; at < text.length; at += 1) {
      const character = text[at];
      if (character === this.#separator || isLineEnd(text, at))
        return { value: text.slice(start, at), end: at };
      if (character === QUOTE) {
        return {
          at,
          reason: 'has a quote within it; put the cell in quotes and double the ones within: "5"" pipe"',
        };
      }
      // The CR at the end of the text may be the first half of CRLF.
      if (character === "\r" && at + 1 === text.length && !isEnd) return "incomplete";
    }
    return isEnd ? { value: text.slice(start), end: text.length } : "incomplete";
  }

  #readQuoted(start: number, isEnd: boolean): CellEnd {
    const text = this.#rest;
    let value = "";
    for (let from = start + 1; ; ) {
      const quote = text.indexOf(QUOTE, from);
      if (quote < 0) {
        return isEnd ? { at: start, reason: "has an opening quote that is never closed" } : "incomplete";
      }
      value += text.slice(from, quote);
      const after = text[quote + 1];
      if (after === QUOTE) {
        value += QUOTE;
        from = quote + 2;
        continue;
      }
      const isUndecided = after === undefined || (after === "\r" && text[quote + 2] === undefined);
      if (isUndecided && !isEnd) return "incomplete";
      if (after === undefined || after === this.#separator || isLineEnd(text, quote + 1)) {
        return { value, end: quote + 1 };
      }
      return {
        at: quote,
        reason: "continues after its closing quote; double the quotes within a quoted cell",
      };
    }
  }

  /** The record with its fault; `undefined` if the end of its first line has not been read yet. */
  #faulty(start: number, { at, cell, reason }: Fault, isEnd: boolean): ReadRecord | undefined {
    const text = this.#rest;
    const lineFeed = text.indexOf("\n", start);
    const isTooLong = text.length - start > RECORD_LENGTH_MAX;
    if (lineFeed < 0 && !isEnd && !isTooLong) return undefined;
    this.#isSkippingLine = lineFeed < 0 && !isEnd;
    const end = lineFeed < 0 ? text.length : lineFeed;
    const line = this.#line + countLineEnds(text, start, at);
    const raw = text.slice(start, text[end - 1] === "\r" ? end - 1 : end);
    return {
      line: this.#line,
      cells: [],
      raw,
      fault: { line, cell, reason },
      next: Math.min(end + 1, text.length),
    };
  }
}

function isLineEnd(text: string, at: number): boolean {
  return text[at] === "\n" || (text[at] === "\r" && text[at + 1] === "\n");
}

function afterLineEnd(text: string, at: number): number {
  return at + (text[at] === "\r" ? 2 : text[at] === "\n" ? 1 : 0);
}

function countLineEnds(text: string, start: number, end: number): number {
  let count = 0;
  for (let at = text.indexOf("\n", start); at >= 0 && at < end; at = text.indexOf("\n", at + 1)) count += 1;
  return count;
}
