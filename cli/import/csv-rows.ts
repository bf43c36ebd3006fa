import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type { ProductSchema } from "../../gen/inventory/v1/stock_pb.ts";
import {
  AdjustStockRequestSchema,
  CountStockRequestSchema,
  DeleteProductRequestSchema,
  PutProductRequestSchema,
} from "../../gen/inventory/v1/supply_pb.ts";
import { CommandError } from "../errors.ts";
import type { CsvRecord } from "../files/csv-reader.ts";
import { unguardFormula } from "../files/csv-writer.ts";
import { parsePrice, parseTimestamp, parseWholeNumber, QUANTITY_MAX } from "../values.ts";
import { microsTimestamp } from "./row-time.ts";
import { FieldFault, type ImportContext, type ImportKind, type Operation, type Row } from "./rows.ts";

/** The columns that each kind of import reads, named as in the protos. */
const COLUMNS: Readonly<Record<ImportKind, { readonly required: string[]; readonly optional: string[] }>> = {
  products: {
    required: ["product_id"],
    optional: ["name", "description", "price", "collection_id", "declared", "update_time", "deleted"],
  },
  counts: { required: ["product_id", "count"], optional: ["count_id", "reason", "expected_version"] },
  adjustments: { required: ["product_id", "delta", "adjustment_id"], optional: ["reason"] },
};

/** Columns of an export that no import reads. They may be present. */
export const LEDGER_COLUMNS = [
  "declare_time",
  "adjusted",
  "sold",
  "reserved",
  "safety",
  "on_hand",
  "available",
  "shortfall",
  "version",
] as const;

/** The first columns of the file of failed rows. There a row with too few cells cannot shift them under other columns. */
export const ERROR_COLUMNS = ["error_line", "error_column", "error"] as const;

export function isErrorColumn(column: string | undefined): boolean {
  return (ERROR_COLUMNS as readonly (string | undefined)[]).includes(column);
}

const DETAILS = ["name", "description", "price", "collection_id"] as const;
const REPLACEMENT_CHARACTER = "\uFFFD";

/** The cells of one row by column. A column that the file does not have is `undefined`. */
type Cells = (column: string) => string | undefined;

/** Maps the records of a CSV file to operations. */
export class CsvRows {
  readonly header: readonly string[];
  readonly #indexes: ReadonlyMap<string, number>;
  readonly #context: ImportContext;

  /** Throws an error that names every unknown, missing and repeated column. */
  constructor(header: CsvRecord, context: ImportContext) {
    this.#context = context;
    this.header = header.cells.map((cell) => cell.trim());
    checkHeader(this.header, context.kind, header.fault?.reason);
    this.#indexes = new Map(this.header.map((column, index) => [column, index]));
  }

  read({ line, cells, raw, fault }: CsvRecord): Row {
    if (fault !== undefined) {
      const column = this.header[fault.cell] ?? "";
      return { line, raw, fault: { line: fault.line, column, reason: fault.reason } };
    }
    const row = { line, raw, cells };
    try {
      return { ...row, operation: this.#toOperation(line, cells) };
    } catch (error) {
      if (!(error instanceof FieldFault)) throw error;
      return { ...row, fault: { line, column: error.column, reason: error.message } };
    }
  }

  #toOperation(line: number, cells: readonly string[]): Operation {
    this.#checkCells(cells);
    const get: Cells = (column) => {
      const index = this.#indexes.get(column);
      return index === undefined ? undefined : unguardFormula(cells[index] ?? "");
    };
    switch (this.#context.kind) {
      case "products":
        return readProduct(get, microsTimestamp(this.#context.updateTimeMicros + line));
      case "counts":
        return readCount(get, `${this.#context.importId}:${line}`);
      case "adjustments":
        return readAdjustment(get);
    }
  }

  #checkCells(cells: readonly string[]): void {
    if (cells.length !== this.header.length) {
      throw new FieldFault("", `has ${cells.length} cells; the header has ${this.header.length}`);
    }
    const index = cells.findIndex((cell) => cell.includes(REPLACEMENT_CHARACTER));
    if (index >= 0) {
      throw new FieldFault(this.header[index] ?? "", "has bytes that are not UTF-8; save the file as UTF-8");
    }
  }
}

function checkHeader(header: readonly string[], kind: ImportKind, fault: string | undefined): void {
  if (fault !== undefined) throw new CommandError(`line 1: the header ${fault}`);
  const { required, optional } = COLUMNS[kind];
  const others: string[] = Object.values(COLUMNS).flatMap((columns) => [
    ...columns.required,
    ...columns.optional,
  ]);
  const known = new Set<string>([...others, ...LEDGER_COLUMNS, ...ERROR_COLUMNS]);
  const problems = header.flatMap((column, index) => {
    if (!known.has(column))
      return [`column ${index + 1} of the header, ${JSON.stringify(column)}, is unknown`];
    return header.indexOf(column) < index ? [`column ${column} is there twice`] : [];
  });
  for (const column of required) {
    if (!header.includes(column)) problems.push(`column ${column} is missing`);
  }
  if (problems.length > 0) {
    const semicolons =
      header.length === 1 && header[0]?.includes(";") ? " If the separator is ;, give --separator ';'." : "";
    throw new CommandError(
      `line 1: ${problems.join("; ")}. An import of ${kind} reads the columns ${[...required, ...optional].join(", ")}.${semicolons}`,
    );
  }
}

function readProduct(get: Cells, rowTime: Timestamp): Operation {
  const productId = readId(get, "product_id");
  const updateTime = readTime(get, "update_time") ?? rowTime;
  if (readFlag(get, "deleted")) {
    return { method: "delete", request: create(DeleteProductRequestSchema, { productId, updateTime }) };
  }
  const product = readDetails(get);
  const declared = readNumber(get, "declared", 0);
  if (product === undefined && declared === undefined) {
    throw new FieldFault("", "has neither details nor declared units");
  }
  const request = create(PutProductRequestSchema, {
    productId,
    updateTime,
    ...(product && { product }),
    ...(declared !== undefined && { declared }),
  });
  return { method: "put", request };
}

/** The details, which are stored as a whole; `undefined` if none of their cells has a value. */
function readDetails(get: Cells): MessageInitShape<typeof ProductSchema> | undefined {
  if (DETAILS.every((column) => !get(column))) return undefined;
  const [name, text] = [get("name"), get("price")];
  if (name === undefined) throw new FieldFault("name", "is missing; details are stored as a whole");
  if (!text) throw new FieldFault("price", "is empty; details are stored as a whole, with a price");
  const price = parsePrice(text);
  if (price === undefined)
    throw new FieldFault("price", `is ${JSON.stringify(text)}; give a number such as 12.50`);
  return { name, price, description: get("description") ?? "", collectionId: get("collection_id") ?? "" };
}

function readCount(get: Cells, defaultId: string): Operation {
  const count = readNumber(get, "count", 0);
  if (count === undefined) throw new FieldFault("count", "is empty; give the units counted");
  const expectedVersion = readNumber(get, "expected_version", 0, Number.MAX_SAFE_INTEGER);
  const request = create(CountStockRequestSchema, {
    productId: readId(get, "product_id"),
    count,
    countId: get("count_id") || defaultId,
    reason: get("reason") ?? "",
    ...(expectedVersion !== undefined && { expectedVersion: BigInt(expectedVersion) }),
  });
  return { method: "count", request };
}

function readAdjustment(get: Cells): Operation {
  const delta = readNumber(get, "delta", -QUANTITY_MAX);
  if (delta === undefined)
    throw new FieldFault("delta", "is empty; give the units added, or removed if below 0");
  const request = create(AdjustStockRequestSchema, {
    productId: readId(get, "product_id"),
    delta,
    adjustmentId: readId(get, "adjustment_id"),
    reason: get("reason") ?? "",
  });
  return { method: "adjust", request };
}

function readId(get: Cells, column: string): string {
  const id = get(column);
  if (!id) throw new FieldFault(column, "is empty");
  return id;
}

function readNumber(get: Cells, column: string, min: number, max = QUANTITY_MAX): number | undefined {
  const text = get(column)?.trim();
  if (!text) return undefined;
  const value = parseWholeNumber(text, min, max);
  if (value === undefined) {
    throw new FieldFault(column, `is ${JSON.stringify(text)}; give a whole number from ${min} to ${max}`);
  }
  return value;
}

function readTime(get: Cells, column: string): Timestamp | undefined {
  const text = get(column)?.trim();
  if (!text) return undefined;
  const time = parseTimestamp(text);
  if (time === undefined) {
    throw new FieldFault(column, `is ${JSON.stringify(text)}; give a time such as 2026-11-28T12:00:00Z`);
  }
  return time;
}

function readFlag(get: Cells, column: string): boolean {
  const text = get(column)?.trim().toLowerCase();
  if (!text || text === "false") return false;
  if (text === "true") return true;
  throw new FieldFault(column, `is ${JSON.stringify(text)}; give true, false or nothing`);
}
