import { serverConnections } from "./clients.ts";
import { type Comparison, compare } from "./compare.ts";
import { type Inspection, inspect } from "./inspect.ts";
import { CopyRefusedError, type Source } from "./source.ts";
import { type Findings, TALLIED, type Tally } from "./tally.ts";
import type { Target } from "./target.ts";

export interface CopyOptions {
  readonly source: Source;
  /** Absent: a dry run. */
  readonly target: Target | undefined;
  /** Copies although servers are connected. */
  readonly force: boolean;
  /** Copies although changes are unpublished; the newest state of every product is published instead of them. */
  readonly discardUnpublished: boolean;
  /** Prints one line of the report. */
  readonly print: (line: string) => void;
}

/**
 * Copies the ledger to an empty Redis, in the current layout and in any number of buckets, and compares the copy with the
 * source. Neither may be used meanwhile. Resolves with whether everything is equal. Rejects with `CopyRefusedError` before
 * anything is written.
 */
export async function copyLedger(options: CopyOptions): Promise<boolean> {
  const { source, target, print } = options;
  await checkUnused(options);
  const newest = await source.newestChanges();
  const unpublished = await checkPublished(options);
  const inspection = await inspect(source);
  reportInspection(inspection, source, print);
  if (inspection.faults.count > 0) {
    print("Repair these records in the source, which is a copy of the data, and start again.");
    return false;
  }
  if (target === undefined) {
    printTable([["", "source"], ...TALLIED.map((what) => [what, String(inspection.tally.get(what))])], print);
    print("A dry run: nothing was written.");
    return true;
  }
  await target.checkEmpty();
  await target.copy(source);
  const comparison = await compare(source, target);
  if ((await source.newestChanges()) !== newest) {
    comparison.differences.add("the source has changed during the copy");
  }
  reportComparison(comparison, print);
  if (comparison.differences.count > 0) {
    print("The copy is not usable: servers refuse it. Empty the target, and start again.");
    return false;
  }
  if (unpublished > 0) {
    await target.requestSnapshots();
  }
  await target.finish();
  return true;
}

async function checkUnused({ source, target, force }: CopyOptions): Promise<void> {
  for (const [name, client] of [["source", source.client] as const, ["target", target?.client] as const]) {
    const connections = client === undefined || force ? [] : await serverConnections(client);
    if (connections.length > 0) {
      throw new CopyRefusedError(
        `Servers are connected to the ${name} (${connections.slice(0, 3).join(", ")}); stop them, or give --force if they cannot write`,
      );
    }
  }
}

/** Resolves with the number of changes that no publisher has sent. */
async function checkPublished({ source, discardUnpublished, print }: CopyOptions): Promise<number> {
  const unpublished = await source.unpublished();
  if (unpublished > 0 && !discardUnpublished) {
    throw new CopyRefusedError(
      `${unpublished} changes are unpublished, and the copy does not have them; let a server publish them, or give --discard-unpublished`,
    );
  }
  if (unpublished > 0) {
    print(
      `${unpublished} changes are unpublished: publishers of the copy send the newest state of every product instead.`,
    );
  }
  return unpublished;
}

function reportInspection(
  { faults, unowned, foreign }: Inspection,
  { layoutVersion, keys }: Source,
  print: (line: string) => void,
): void {
  print(`The source has layout ${layoutVersion} and ${keys.buckets} buckets.`);
  printFindings("fault", faults, print);
  const total = unowned.count + unowned.adjust + unowned.return;
  if (total > 0) {
    print(
      `${total} operations are not copied, because layout 2 does not tell their product or reservation: ` +
        `${unowned.count} counts, ${unowned.adjust} adjustments, ${unowned.return} returns. A caller that repeats one of them after the copy executes it again.`,
    );
  }
  if (foreign > 0) {
    print(
      `${foreign} keys do not belong to the ledger and are not copied. If they have counts of the Go service, run "npm run adopt" first.`,
    );
  }
}

function reportComparison({ source, target, differences }: Comparison, print: (line: string) => void): void {
  for (const what of TALLIED) {
    if (source.get(what) !== target.get(what)) {
      differences.add(`${what}: the target has ${target.get(what)}, the source ${source.get(what)}`);
    }
  }
  const cell = (tally: Tally, what: (typeof TALLIED)[number]) => String(tally.get(what));
  printTable(
    [["", "source", "target"], ...TALLIED.map((what) => [what, cell(source, what), cell(target, what)])],
    print,
  );
  printFindings("difference", differences, print);
}

function printFindings(word: string, findings: Findings, print: (line: string) => void): void {
  for (const text of findings.kept) {
    print(`${word}: ${text}`);
  }
  print(`${findings.count} ${word}s`);
}

/** Prints rows with the first column on the left and the others on the right. */
function printTable(rows: readonly (readonly string[])[], print: (line: string) => void): void {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  for (const row of rows) {
    const cells = row.map((cell, column) =>
      column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
    );
    print(cells.join("  ").trimEnd());
  }
}
