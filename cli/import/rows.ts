import type {
  AdjustStockRequest,
  CountStockRequest,
  DeleteProductRequest,
  PutProductRequest,
} from "../../gen/inventory/v1/supply_pb.ts";

/** What a file contains. */
export type ImportKind = "products" | "counts" | "adjustments";

/** One call to the server. */
export type Operation =
  | { readonly method: "put"; readonly request: PutProductRequest }
  | { readonly method: "delete"; readonly request: DeleteProductRequest }
  | { readonly method: "count"; readonly request: CountStockRequest }
  | { readonly method: "adjust"; readonly request: AdjustStockRequest };

/** Why a row was not imported. */
export interface RowFault {
  readonly line: number;
  /** The column or field. Empty if the row as a whole is at fault. */
  readonly column: string;
  readonly reason: string;
}

/** A row of the file: an operation, or why there is none. */
export interface Row {
  /** The line on which it begins. */
  readonly line: number;
  /** Its text in the file. */
  readonly raw: string;
  /** The cells of a CSV row that could be read. */
  readonly cells?: readonly string[];
  readonly operation?: Operation;
  readonly fault?: RowFault;
}

/** What the operations of an import need besides the row. */
export interface ImportContext {
  readonly kind: ImportKind;
  /** Begins the IDs of counts without a `count_id`: the same for every run of the same file. */
  readonly importId: string;
  /** When the data was true, µs since 1970. A row without `update_time` has this time and a µs more for each line. */
  readonly updateTimeMicros: number;
}

/** Thrown while a row is read. */
export class FieldFault extends Error {
  override readonly name = "FieldFault";
  readonly column: string;

  constructor(column: string, reason: string) {
    super(reason);
    this.column = column;
  }
}
