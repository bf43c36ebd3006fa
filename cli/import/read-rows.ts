import { createReadStream } from "node:fs";
import { CommandError } from "../errors.ts";
import { CsvReader } from "../files/csv-reader.ts";
import type { FileFormat } from "../files/format.ts";
import { CsvRows } from "./csv-rows.ts";
import { JsonRows } from "./json-rows.ts";
import type { ImportContext, Row } from "./rows.ts";

const CHUNK_BYTES = 65_536;

/** Rows of one chunk of the file. */
export interface RowChunk {
  readonly rows: readonly Row[];
  /** Bytes of the file read so far. */
  readonly bytesRead: number;
}

export interface RowSource {
  readonly chunks: AsyncIterable<RowChunk>;
  /** The header of a CSV file, once it is read. */
  readonly header: () => readonly string[];
}

/** Reads a file, or standard input if it is `-`, in chunks. The next chunk is read when it is asked for. */
export function readRows(
  file: string,
  { format, separator }: { readonly format: FileFormat; readonly separator: string },
  context: ImportContext,
): RowSource {
  const input = file === "-" ? process.stdin : createReadStream(file, { highWaterMark: CHUNK_BYTES });
  const parser = format === "csv" ? new CsvParser(separator, context) : new JsonRows(context);
  async function* chunks(): AsyncGenerator<RowChunk> {
    const decoder = new TextDecoder();
    let bytesRead = 0;
    for await (const chunk of input as AsyncIterable<Buffer>) {
      if (bytesRead === 0) refuseUtf16(chunk);
      bytesRead += chunk.length;
      yield { rows: parser.push(decoder.decode(chunk, { stream: true })), bytesRead };
    }
    yield { rows: [...parser.push(decoder.decode()), ...parser.end()], bytesRead };
  }
  return { chunks: chunks(), header: () => (parser instanceof CsvParser ? parser.header : []) };
}

class CsvParser {
  readonly #reader: CsvReader;
  readonly #context: ImportContext;
  #rows: CsvRows | undefined;

  constructor(separator: string, context: ImportContext) {
    this.#reader = new CsvReader(separator);
    this.#context = context;
  }

  get header(): readonly string[] {
    return this.#rows?.header ?? [];
  }

  push(text: string): Row[] {
    return this.#toRows(this.#reader.push(text));
  }

  end(): Row[] {
    const rows = this.#toRows(this.#reader.end());
    if (this.#rows === undefined)
      throw new CommandError("The file is empty; a CSV file begins with a header");
    return rows;
  }

  #toRows(records: ReturnType<CsvReader["push"]>): Row[] {
    let rest = records;
    if (this.#rows === undefined) {
      const [header, ...others] = records;
      if (header === undefined) return [];
      this.#rows = new CsvRows(header, this.#context);
      rest = others;
    }
    const rows = this.#rows;
    return rest.map((record) => rows.read(record));
  }
}

function refuseUtf16(chunk: Buffer): void {
  const [first, second] = chunk;
  if ((first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff)) {
    throw new CommandError("The file is UTF-16; save it as UTF-8");
  }
}
