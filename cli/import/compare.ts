import { timestampMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Product } from "../../gen/inventory/v1/stock_pb.ts";
import type { Ledger } from "../../gen/inventory/v1/supply_pb.ts";
import { signed } from "../columns.ts";
import { EXIT, type ExitCode } from "../errors.ts";
import { ProgressReporter } from "../output/progress.ts";
import { printable } from "../output/text.ts";
import type { Session } from "../session.ts";
import { BATCH_ROWS_MAX } from "./limits.ts";
import type { RowSource } from "./read-rows.ts";
import type { Operation, Row } from "./rows.ts";

/** Ledgers are read one by one, so many at once. */
const READS_IN_FLIGHT = 32;
/** Changes and faults that are printed. */
const SHOWN_MAX = 20;

const OUTCOMES = ["create", "change", "delete", "unchanged", "superseded", "unknown", "failed"] as const;
type Outcome = (typeof OUTCOMES)[number];

interface Difference {
  readonly outcome: Outcome;
  readonly text: string;
}

/** The dry run of an import: compares every row with the server's ledgers and details, and changes nothing. */
export async function compareImport(session: Session, { chunks }: RowSource): Promise<ExitCode> {
  const counts = Object.fromEntries(OUTCOMES.map((outcome) => [outcome, 0])) as Record<Outcome, number>;
  const progress = new ProgressReporter("compared");
  let [shown, compared] = [0, 0];
  const report = async ({ outcome, text }: Difference, line: number): Promise<void> => {
    counts[outcome] += 1;
    compared += 1;
    if (outcome === "unchanged" || shown >= SHOWN_MAX) return;
    shown += 1;
    progress.clear();
    if (!session.output.json)
      await session.output.write(`${printable(`line ${line}: ${outcome} ${text}`)}\n`);
  };
  let batch: Row[] = [];
  const flush = async (): Promise<void> => {
    const differences = await compareRows(session, batch);
    for (const [index, row] of batch.entries()) {
      const difference = differences[index];
      if (difference !== undefined) await report(difference, row.fault?.line ?? row.line);
    }
    progress.update({ rows: compared, failed: counts.failed, fraction: undefined });
    batch = [];
  };
  for await (const { rows } of chunks) {
    for (const row of rows) {
      batch.push(row);
      if (batch.length >= BATCH_ROWS_MAX) await flush();
    }
  }
  await flush();
  progress.clear();
  if (session.output.json) {
    await session.output.writeJson({ dryRun: true, ...counts });
  } else {
    const parts = OUTCOMES.filter((outcome) => counts[outcome] > 0).map(
      (outcome) => `${counts[outcome]} ${outcome}`,
    );
    await session.output.write(`Dry run, nothing was changed: ${parts.join(", ") || "no rows"}\n`);
  }
  return counts.failed + counts.unknown > 0 ? EXIT.failed : EXIT.ok;
}

async function compareRows(session: Session, rows: readonly Row[]): Promise<Difference[]> {
  const operations = rows.flatMap(({ operation }) => (operation === undefined ? [] : [operation]));
  const productIds = [...new Set(operations.map(({ request }) => request.productId))];
  const [ledgers, details] = await Promise.all([
    readLedgers(session, productIds),
    readDetails(session, operations),
  ]);
  return rows.map(({ operation, fault }) => {
    if (operation === undefined) {
      return { outcome: "failed", text: [fault?.column, fault?.reason].filter(Boolean).join(": ") };
    }
    const { productId } = operation.request;
    return compare(operation, ledgers.get(productId), details.get(productId));
  });
}

async function readLedgers(session: Session, productIds: readonly string[]): Promise<Map<string, Ledger>> {
  const ledgers = new Map<string, Ledger>();
  const ids = productIds.values();
  const work = async (): Promise<void> => {
    // All workers take from the same iterator.
    for (const productId of ids) {
      try {
        const { ledger } = await session.supply.getLedger({ productId });
        if (ledger !== undefined) ledgers.set(productId, ledger);
      } catch (error) {
        // An ID that is not valid is reported when it is imported.
        const code = ConnectError.from(error).code;
        if (code !== Code.NotFound && code !== Code.InvalidArgument) throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: READS_IN_FLIGHT }, work));
  return ledgers;
}

async function readDetails(
  session: Session,
  operations: readonly Operation[],
): Promise<Map<string, Product>> {
  const puts = operations.filter(({ method, request }) => method === "put" && request.productId !== "");
  const productIds = [...new Set(puts.map(({ request }) => request.productId))];
  if (productIds.length === 0) return new Map();
  const { stocks } = await session.stock.batchGetStock({ productIds });
  return new Map(
    stocks.flatMap(({ productId, product }) => (product ? [[productId, product] as const] : [])),
  );
}

function compare(operation: Operation, ledger: Ledger | undefined, details: Product | undefined): Difference {
  const { productId } = operation.request;
  switch (operation.method) {
    case "put":
      return comparePut(operation.request, ledger, details);
    case "delete": {
      const isDone = ledger === undefined || ledger.deleted;
      return isDone ? { outcome: "unchanged", text: productId } : { outcome: "delete", text: productId };
    }
    case "count": {
      if (ledger === undefined) return unknown(productId);
      const { count = 0 } = operation.request;
      return changed(productId, count === ledger.onHand ? [] : [`on hand ${ledger.onHand} → ${count}`]);
    }
    case "adjust": {
      if (ledger === undefined) return unknown(productId);
      const { delta = 0 } = operation.request;
      return changed(productId, [`on hand ${ledger.onHand} → ${ledger.onHand + delta} (${signed(delta)})`]);
    }
  }
}

function comparePut(
  { productId, product, declared, updateTime }: Extract<Operation, { method: "put" }>["request"],
  ledger: Ledger | undefined,
  details: Product | undefined,
): Difference {
  if (ledger === undefined || ledger.deleted) return { outcome: "create", text: productId };
  const differs: string[] = [];
  if (declared !== undefined && declared !== ledger.declared) {
    if (updateTime && ledger.declareTime && timestampMs(updateTime) < timestampMs(ledger.declareTime)) {
      return { outcome: "superseded", text: `${productId}: declared ${ledger.declared} is newer` };
    }
    differs.push(`declared ${ledger.declared} → ${declared}`);
  }
  for (const field of ["name", "price", "description", "collectionId"] as const) {
    if (product !== undefined && product[field] !== details?.[field]) {
      differs.push(`${field} ${JSON.stringify(details?.[field] ?? "")} → ${JSON.stringify(product[field])}`);
    }
  }
  return changed(productId, differs);
}

function changed(productId: string, differences: readonly string[]): Difference {
  return differences.length === 0
    ? { outcome: "unchanged", text: productId }
    : { outcome: "change", text: `${productId}: ${differences.join(", ")}` };
}

function unknown(productId: string): Difference {
  return { outcome: "unknown", text: `product ${JSON.stringify(productId)}` };
}
