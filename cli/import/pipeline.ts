import type { RetryOptions } from "../retry.ts";
import type { Session } from "../session.ts";
import { BATCH_BYTES_MAX, BATCH_ROWS_MAX, BATCHES_IN_FLIGHT, RETRY_MS_MAX } from "./limits.ts";
import type { RowChunk } from "./read-rows.ts";
import type { Operation, Row } from "./rows.ts";
import { type RowResult, sendBatch } from "./send.ts";

/** Consecutive rows of the file: operations of one method, and rows that cannot be sent. */
interface Batch {
  readonly rows: Row[];
  readonly operations: Operation[];
  bytes: number;
  /** The number of the last row, from 1. */
  lastRow: number;
  bytesRead: number;
}

/** A batch whose results are known. */
export interface SettledBatch {
  readonly rows: readonly Row[];
  /** Of the rows with an operation, in their order. */
  readonly results: readonly RowResult[];
  readonly lastRow: number;
  readonly bytesRead: number;
}

export interface PipelineOptions {
  readonly session: Session;
  /** Rows at the beginning of the file that were imported before. */
  readonly skipRows: number;
  /** Whether to send a deletion. Called for each, one after the other. */
  readonly allowDeletion: (row: Row) => Promise<boolean>;
  readonly onRetry: RetryOptions["onRetry"];
  /** Called in the order of the file. */
  readonly onSettled: (batch: SettledBatch) => void;
}

/**
 * Sends the rows of a file in batches, several in flight. The next chunk of the file is read once there is room for its rows, so
 * the memory is bounded. Rows of the same product are sent in their order: a row waits for an earlier batch that has its product.
 * Resolves early, after the batches in flight, if the session is interrupted. Rejects if the server stays unavailable; the
 * batches before the failed one have been settled.
 */
export async function runPipeline(chunks: AsyncIterable<RowChunk>, options: PipelineOptions): Promise<void> {
  const { session, skipRows, allowDeletion, onRetry, onSettled } = options;
  const retry: RetryOptions = { limitMs: RETRY_MS_MAX, signal: session.signal, ...(onRetry && { onRetry }) };
  const inFlight: { readonly batch: Batch; readonly results: Promise<RowResult[]> }[] = [];
  /** The batch in flight that has a product. */
  const products = new Map<string, Promise<unknown>>();
  let current = emptyBatch();
  let rowNumber = 0;

  const settleFirst = async (): Promise<void> => {
    const first = inFlight[0];
    if (first === undefined) return;
    const results = await first.results;
    inFlight.shift();
    for (const { request } of first.batch.operations) {
      if (products.get(request.productId) === first.results) products.delete(request.productId);
    }
    const { rows, lastRow, bytesRead } = first.batch;
    onSettled({ rows, results, lastRow, bytesRead });
  };
  const flush = async (): Promise<void> => {
    if (current.rows.length === 0) return;
    while (inFlight.length >= BATCHES_IN_FLIGHT) await settleFirst();
    const batch = current;
    current = emptyBatch();
    const results = sendBatch(session, batch.operations, retry);
    // Handled when the batch is settled, in the order of the file.
    results.catch(() => undefined);
    for (const { request } of batch.operations) products.set(request.productId, results);
    inFlight.push({ batch, results });
  };

  for await (const { rows, bytesRead } of chunks) {
    for (const row of rows) {
      rowNumber += 1;
      if (rowNumber <= skipRows) continue;
      if (session.signal.aborted) break;
      const { operation } = row;
      const isDenied = operation?.method === "delete" && !(await allowDeletion(row));
      if (operation !== undefined && !isDenied) {
        const size = Buffer.byteLength(row.raw) + ROW_OVERHEAD_BYTES;
        const isFull = current.operations.length >= BATCH_ROWS_MAX || current.bytes + size > BATCH_BYTES_MAX;
        const { method = operation.method } = current.operations[0] ?? {};
        if (isFull || method !== operation.method) await flush();
        await products.get(operation.request.productId)?.catch(() => undefined);
        current.bytes += size;
        current.operations.push(operation);
      }
      current.rows.push(isDenied ? withoutOperation(row) : row);
      current.lastRow = rowNumber;
      current.bytesRead = bytesRead;
      if (current.rows.length >= FAULTY_ROWS_MAX) await flush();
    }
    if (session.signal.aborted) break;
  }
  if (!session.signal.aborted) await flush();
  while (inFlight.length > 0) await settleFirst();
}

/** What a request has besides the text of its row. */
const ROW_OVERHEAD_BYTES = 96;
/** A batch is settled after so many rows even if most of them cannot be sent. */
const FAULTY_ROWS_MAX = 2 * BATCH_ROWS_MAX;

function emptyBatch(): Batch {
  return { rows: [], operations: [], bytes: 0, lastRow: 0, bytesRead: 0 };
}

function withoutOperation({ operation: _operation, ...row }: Row): Row {
  const reason = "deletes the product; confirm deletions with --yes";
  return { ...row, fault: { line: row.line, column: "deleted", reason } };
}
