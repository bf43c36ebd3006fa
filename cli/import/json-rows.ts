import {
  type DescMessage,
  fromJson,
  type JsonObject,
  type JsonValue,
  type MessageShape,
} from "@bufbuild/protobuf";
import {
  AdjustStockRequestSchema,
  CountStockRequestSchema,
  DeleteProductRequestSchema,
  PutProductRequestSchema,
} from "../../gen/inventory/v1/supply_pb.ts";
import { microsTimestamp } from "./row-time.ts";
import { FieldFault, type ImportContext, type Operation, type Row } from "./rows.ts";

/** Longest line, characters. */
const LINE_LENGTH_MAX = 262_144;
/** Fields of exports and of the file of failed rows that no import reads. */
const IGNORED = ["ledger", "error"];

/** Reads JSON lines: one request a line, as protobuf JSON. Products may have `"deleted": true`. */
export class JsonRows {
  readonly #context: ImportContext;
  #rest = "";
  #line = 0;
  /** Whether the rest belongs to a line that is too long and has been reported. */
  #isSkipping = false;

  constructor(context: ImportContext) {
    this.#context = context;
  }

  push(text: string): Row[] {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    const rows = lines.flatMap((line) => this.#readLine(line));
    if (this.#rest.length > LINE_LENGTH_MAX) {
      if (!this.#isSkipping) {
        const line = this.#line + 1;
        const reason = `is longer than ${LINE_LENGTH_MAX} characters`;
        rows.push({ line, raw: this.#rest.slice(0, 1_000), fault: { line, column: "", reason } });
      }
      this.#isSkipping = true;
      this.#rest = "";
    }
    return rows;
  }

  end(): Row[] {
    return this.#readLine(this.#rest);
  }

  #readLine(text: string): Row[] {
    this.#line += 1;
    const line = this.#line;
    if (this.#isSkipping) {
      this.#isSkipping = false;
      return [];
    }
    const raw = text.endsWith("\r") ? text.slice(0, -1) : text;
    if (raw.trim() === "") return [];
    try {
      return [{ line, raw, operation: toOperation(raw, line, this.#context) }];
    } catch (error) {
      if (!(error instanceof FieldFault)) throw error;
      return [{ line, raw, fault: { line, column: error.column, reason: error.message } }];
    }
  }
}

function toOperation(raw: string, line: number, context: ImportContext): Operation {
  if (raw.includes("\uFFFD")) {
    throw new FieldFault("", "has bytes that are not UTF-8; save the file as UTF-8");
  }
  const { deleted, ...fields } = parseObject(raw);
  for (const name of IGNORED) delete fields[name];
  if (context.kind === "counts") {
    const request = read(CountStockRequestSchema, fields);
    request.countId ||= `${context.importId}:${line}`;
    return { method: "count", request };
  }
  if (context.kind === "adjustments") {
    const request = read(AdjustStockRequestSchema, fields);
    if (request.adjustmentId === "") throw new FieldFault("adjustmentId", "is missing");
    return { method: "adjust", request };
  }
  if (deleted !== undefined && typeof deleted !== "boolean") {
    throw new FieldFault("deleted", `is ${JSON.stringify(deleted)}; give true or false`);
  }
  const updateTime = microsTimestamp(context.updateTimeMicros + line);
  if (deleted === true) {
    const { product: _product, declared: _declared, ...rest } = fields;
    const request = read(DeleteProductRequestSchema, rest);
    request.updateTime ??= updateTime;
    return { method: "delete", request };
  }
  const request = read(PutProductRequestSchema, fields);
  request.updateTime ??= updateTime;
  return { method: "put", request };
}

function parseObject(raw: string): JsonObject {
  let value: JsonValue;
  try {
    value = JSON.parse(raw) as JsonValue;
  } catch (error) {
    throw new FieldFault("", `is not JSON: ${(error as Error).message}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new FieldFault("", "is not a JSON object");
  }
  return value;
}

function read<Desc extends DescMessage>(schema: Desc, fields: JsonObject): MessageShape<Desc> {
  try {
    return fromJson(schema, fields);
  } catch (error) {
    const { message } = error as Error;
    // `cannot decode field inventory.v1.PutProductRequest.declared from JSON: …`
    const [, column = ""] = /field [\w.]+\.(\w+)/.exec(message) ?? [];
    throw new FieldFault(column, message);
  }
}
