import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { CatalogEntry } from "../catalog.ts";
import { csvRecord, guardFormula } from "./csv-writer.ts";

type Cell = readonly [column: string, value: (entry: CatalogEntry) => string];

const DETAIL_CELLS: readonly Cell[] = [
  ["product_id", ({ ledger }) => guardFormula(ledger.productId)],
  ["name", ({ product }) => guardFormula(product?.name ?? "")],
  ["description", ({ product }) => guardFormula(product?.description ?? "")],
  ["price", ({ product }) => (product?.price === undefined ? "" : String(product.price))],
  ["collection_id", ({ product }) => guardFormula(product?.collectionId ?? "")],
  ["declared", ({ ledger }) => (ledger.deleted ? "" : String(ledger.declared))],
  ["deleted", ({ ledger }) => (ledger.deleted ? "true" : "")],
  [
    "declare_time",
    ({ ledger: { declareTime } }) => (declareTime ? timestampDate(declareTime).toISOString() : ""),
  ],
];

const LEDGER_CELLS: readonly Cell[] = [
  ["adjusted", ({ ledger }) => String(ledger.adjusted)],
  ["sold", ({ ledger }) => String(ledger.sold)],
  ["reserved", ({ ledger }) => String(ledger.reserved)],
  ["safety", ({ ledger }) => String(ledger.safety)],
  ["on_hand", ({ ledger }) => String(ledger.onHand)],
  ["available", ({ ledger }) => String(ledger.available)],
  ["shortfall", ({ ledger }) => String(ledger.shortfall)],
  ["version", ({ ledger }) => String(ledger.version)],
];

const CELLS = [...DETAIL_CELLS, ...LEDGER_CELLS];

/** The header of an export. `import` reads the first seven columns, and accepts the others. */
export const CATALOG_CSV_HEADER = csvRecord(CELLS.map(([column]) => column));

export function catalogCsvRecord(entry: CatalogEntry): string {
  return csvRecord(CELLS.map(([, value]) => value(entry)));
}
