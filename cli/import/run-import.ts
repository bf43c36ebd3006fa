import { randomUUID } from "node:crypto";
import { statSync } from "node:fs";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { ConnectError } from "@connectrpc/connect";
import { codeName, EXIT, type ExitCode, usageError } from "../errors.ts";
import type { FileFormat } from "../files/format.ts";
import { canAsk, confirm } from "../output/confirm.ts";
import { ProgressReporter } from "../output/progress.ts";
import { plural, printable } from "../output/text.ts";
import type { Session } from "../session.ts";
import { ErrorFile } from "./error-file.ts";
import { type Counts, hashFile, Journal, type JournalState } from "./journal.ts";
import { runPipeline, type SettledBatch } from "./pipeline.ts";
import { readRows } from "./read-rows.ts";
import type { ImportContext, ImportKind, Row, RowFault } from "./rows.ts";

/** Failed rows that are printed; `--errors` collects all. */
const FAULTS_SHOWN = 20;
/** Interval between two warnings about a server that is unavailable, ms. */
const RETRY_WARNING_MS = 5_000;
/** Characters of the file's hash in the IDs of its counts. */
const IMPORT_ID_LENGTH = 32;

export interface ImportOptions {
  readonly kind: ImportKind;
  readonly format: FileFormat;
  readonly separator: string;
  readonly updateTime: Timestamp | "now" | undefined;
  readonly errors: string | undefined;
  readonly yes: boolean;
  /** Import a file again that was imported before. */
  readonly again: boolean;
  readonly journal: boolean;
}

/** Imports a file. Resolves with the exit code. */
export async function runImport(session: Session, file: string, options: ImportOptions): Promise<ExitCode> {
  const source = await openSource(session, file, options);
  const { journal, state: begun } = source;
  if (begun.endTime !== undefined) {
    session.output.note(
      `${file} was imported at ${begun.endTime} (${plural(begun.failed, "row")} failed), and nothing was done again. --again imports it once more.`,
    );
    return EXIT.ok;
  }
  if (begun.rows > 0)
    session.output.note(`Continuing after ${plural(begun.rows, "row")} of the interrupted import`);

  const context: ImportContext = {
    kind: options.kind,
    importId: begun.importId,
    updateTimeMicros: begun.updateTimeMicros,
  };
  const { chunks, header } = readRows(file, options, context);
  const errorFile =
    options.errors === undefined
      ? undefined
      : new ErrorFile(options.errors, options.format, header, begun.errorBytes);
  const progress = new ProgressReporter("imported");
  let state = begun;
  let shown = 0;
  const onFault = (row: Row, fault: RowFault): void => {
    errorFile?.write(row, fault);
    shown += 1;
    if (shown > FAULTS_SHOWN) return;
    progress.clear();
    const column = fault.column === "" ? "" : `, ${fault.column}`;
    session.output.note(printable(`line ${fault.line}${column}: ${fault.reason}`));
    if (shown === FAULTS_SHOWN)
      session.output.note("More failed rows are not printed; --errors collects all.");
  };
  const startMs = performance.now();
  try {
    await runPipeline(chunks, {
      session,
      skipRows: begun.rows,
      allowDeletion: deletionGuard(options.yes, () => progress.clear()),
      onRetry: retryWarning(session, progress),
      onSettled: (batch) => {
        const counts = settle(batch, state, onFault);
        state = { ...state, ...counts, rows: batch.lastRow, errorBytes: errorFile?.bytes ?? 0 };
        journal?.write(state);
        const fraction = source.bytes === undefined ? undefined : batch.bytesRead / source.bytes;
        progress.update({ rows: batch.lastRow, failed: state.failed, fraction });
      },
    });
  } catch (error) {
    progress.clear();
    if (!session.signal.aborted) {
      reportInterruption(session, state, journal);
      throw error;
    }
  } finally {
    progress.clear();
    errorFile?.close();
  }
  if (session.signal.aborted) {
    reportInterruption(session, state, journal);
    return EXIT.interrupted;
  }
  finish(journal, state);
  await printSummary(session, state, performance.now() - startMs);
  return state.failed > 0 ? EXIT.failed : EXIT.ok;
}

interface Source {
  readonly journal: Journal | undefined;
  readonly state: JournalState;
  /** Absent for standard input. */
  readonly bytes: number | undefined;
}

/** Finds the state from which to import: a new one, or that of an import of the same content to the same server. */
async function openSource(session: Session, file: string, options: ImportOptions): Promise<Source> {
  const { kind, again } = options;
  const nowMs = Date.now();
  const fresh = {
    format: 1,
    kind,
    url: session.url,
    startTime: new Date(nowMs).toISOString(),
    applied: 0,
    superseded: 0,
    failed: 0,
    rows: 0,
    errorBytes: 0,
  } as const;
  if (file === "-") {
    return {
      journal: undefined,
      state: {
        ...fresh,
        sha256: "",
        importId: randomUUID(),
        updateTimeMicros: updateTimeMicros(options.updateTime, nowMs, nowMs),
      },
      bytes: undefined,
    };
  }
  const { size, mtimeMs } = statFile(file);
  const journal = options.journal ? new Journal(file) : undefined;
  const known = journal?.read();
  const sha256 = await hashFile(file);
  const isSame = known?.sha256 === sha256 && known.kind === kind && known.url === session.url;
  if (known !== undefined && isSame && !(known.endTime !== undefined && again)) {
    return { journal, state: known, bytes: size };
  }
  // A repetition has other IDs, or the server would recognise the counts of the first time.
  const importId = again ? randomUUID() : sha256.slice(0, IMPORT_ID_LENGTH);
  return {
    journal,
    state: {
      ...fresh,
      sha256,
      importId,
      updateTimeMicros: updateTimeMicros(options.updateTime, mtimeMs, nowMs),
    },
    bytes: size,
  };
}

function statFile(file: string): { readonly size: number; readonly mtimeMs: number } {
  const stats = statSync(file, { throwIfNoEntry: false });
  if (stats === undefined) throw usageError(`${file} does not exist`);
  if (!stats.isFile()) throw usageError(`${file} is not a file; a pipe is read as "-"`);
  return stats;
}

/** The time given, or that of the last change of the file, in µs, and not in the future. */
function updateTimeMicros(given: ImportOptions["updateTime"], modifiedMs: number, nowMs: number): number {
  if (given === "now") return nowMs * 1_000;
  return Math.floor(Math.min(given === undefined ? modifiedMs : timestampMs(given), nowMs)) * 1_000;
}

/** Asks at the first row that deletes a product. */
function deletionGuard(yes: boolean, beforeQuestion: () => void): (row: Row) => Promise<boolean> {
  let isAllowed: boolean | undefined = yes || (canAsk() ? undefined : false);
  return async ({ line, operation }) => {
    if (isAllowed === undefined) {
      beforeQuestion();
      const question = `Line ${line} deletes ${JSON.stringify(operation?.request.productId)}. Delete this product, and those of all further rows marked as deleted?`;
      isAllowed = await confirm(question, false);
    }
    return isAllowed;
  };
}

/** Warns that the server is unavailable, but not for every batch and attempt. */
function retryWarning(session: Session, progress: ProgressReporter): (error: ConnectError) => void {
  let warnedMs = Number.NEGATIVE_INFINITY;
  return (error) => {
    if (performance.now() - warnedMs < RETRY_WARNING_MS) return;
    warnedMs = performance.now();
    progress.clear();
    session.output.warn(`${codeName(error.code)}: ${error.rawMessage}; trying again`);
  };
}

/** The counts with those of a batch. Reports its failed rows. */
function settle(
  { rows, results }: SettledBatch,
  before: Counts,
  onFault: (row: Row, fault: RowFault) => void,
): Counts {
  const counts = { applied: before.applied, superseded: before.superseded, failed: before.failed };
  const outcomes = results.values();
  for (const row of rows) {
    const result: RowResultOrFault =
      row.fault === undefined
        ? (outcomes.next().value ?? MISSING_RESULT)
        : { outcome: "failed", ...row.fault };
    counts[result.outcome] += 1;
    if (result.outcome === "failed") {
      onFault(row, { line: row.fault?.line ?? row.line, column: result.column, reason: result.reason });
    }
  }
  return counts;
}

type RowResultOrFault = SettledBatch["results"][number];

const MISSING_RESULT = { outcome: "failed", column: "", reason: "the server returned no result" } as const;

/** Products can be imported again without harm, so only counts and adjustments are remembered. */
function finish(journal: Journal | undefined, state: JournalState): void {
  if (state.kind === "products") journal?.delete();
  else journal?.write({ ...state, endTime: new Date().toISOString() });
}

function reportInterruption(session: Session, { rows }: JournalState, journal: Journal | undefined): void {
  if (rows === 0) return;
  const how =
    journal === undefined
      ? "the same command starts again"
      : `the same command continues (${printable(journal.path)})`;
  session.output.note(`Interrupted after ${plural(rows, "row")}: ${how}`);
}

async function printSummary(session: Session, state: JournalState, ms: number): Promise<void> {
  const { kind, rows, applied, superseded, failed } = state;
  const seconds = Number((ms / 1_000).toFixed(2));
  if (session.output.json) {
    await session.output.writeJson({ kind, rows, applied, superseded, failed, seconds });
    return;
  }
  const parts = [`${plural(applied, "row")} imported`];
  if (superseded > 0)
    parts.push(`${superseded.toLocaleString("en-US")} superseded by newer updates, which stay`);
  if (failed > 0) parts.push(`${failed.toLocaleString("en-US")} failed`);
  await session.output.write(`${parts.join(", ")}, in ${seconds} s\n`);
}
