import { existsSync } from "node:fs";
import { resolve } from "node:path";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { type Command, Option } from "commander";
import { addLedgerFilters, catalogJson, type LedgerFilterOptions, listCatalog } from "../catalog.ts";
import { defineCommand } from "../command.ts";
import { CommandError, EXIT, usageError } from "../errors.ts";
import { CATALOG_CSV_HEADER, catalogCsvRecord } from "../files/catalog-csv.ts";
import { type ExportSink, fileSink } from "../files/export-file.ts";
import { type FileFormat, FORMATS, formatOf } from "../files/format.ts";
import { compareImport } from "../import/compare.ts";
import { readRows } from "../import/read-rows.ts";
import type { ImportKind } from "../import/rows.ts";
import { runImport } from "../import/run-import.ts";
import { confirm } from "../output/confirm.ts";
import { ProgressReporter } from "../output/progress.ts";
import { plural } from "../output/text.ts";
import type { Session } from "../session.ts";
import { timeFromNow } from "../values.ts";

// Commands that move many products between files and the server.

interface ImportFlags {
  readonly counts?: boolean;
  readonly adjustments?: boolean;
  readonly format?: FileFormat;
  readonly separator: string;
  readonly updateTime?: Timestamp | "now";
  readonly errors?: string;
  readonly yes?: boolean;
  readonly again?: boolean;
  readonly journal: boolean;
  readonly dryRun?: boolean;
}

export function addTransfer(program: Command): void {
  addImport(program);
  addExport(program);
}

const IMPORT_DESCRIPTION = `<file> is CSV with a header (.csv) or JSON lines (.jsonl); "-" is standard input. Columns:
  products        product_id, name, description, price, collection_id, declared, update_time, deleted
  --counts        product_id, count, count_id, reason, expected_version
  --adjustments   product_id, delta, adjustment_id, reason
Good rows go in although others fail; those are reported with line, column and reason, and the exit code is 1.
An interrupted import is continued by the same command. Newer changes are not overwritten: the time of the data is
update_time, or the time at which the file was last changed. Needs the role supply or ops.`;

function addImport(program: Command): void {
  defineCommand<[string], ImportFlags>(
    program,
    {
      usage: "import",
      summary: "Import products, counts or adjustments from a file",
      description: IMPORT_DESCRIPTION,
      examples: [
        "printf 'product_id,name,price,declared\\nmug-1,Enamel Mug,14,120\\n' | npx inventory import -",
        "printf 'product_id,count\\ndemo-07,28\\n' | npx inventory import - --counts --dry-run",
        "printf 'product_id,delta,adjustment_id,reason\\ndemo-08,6,delivery-8,delivery\\n' | npx inventory import - --adjustments",
      ],
    },
    (command) =>
      command
        .argument("<file>")
        .addOption(new Option("--counts", "the file has physical counts").conflicts("adjustments"))
        .option("--adjustments", "the file has adjustments")
        .addOption(new Option("--format <format>", "instead of the file's extension").choices(FORMATS))
        .option("--separator <character>", "between the cells of CSV", ",")
        .option(
          "--update-time <time>",
          'when the data was true: a time, or "now" to overwrite newer changes',
          updateTime,
        )
        .option("--errors <file>", "write the failed rows with their errors to this file")
        .option("--yes", "import rows that delete products without asking")
        .option("--again", "import counts or adjustments again that were imported completely")
        .option("--no-journal", "do not record the progress in FILE.inventory-import")
        .option("--dry-run", "compare with the server and print what would change; change nothing"),
    async (session, flags, file) => {
      const kind = kindOf(flags);
      const format = formatOf(file, flags.format);
      const { separator } = flags;
      if (separator.length !== 1 || /["\r\n]/.test(separator)) {
        throw usageError(
          `--separator is ${JSON.stringify(separator)}; give one character other than a quote`,
        );
      }
      if (flags.errors !== undefined && resolve(flags.errors) === resolve(file)) {
        throw usageError("--errors is the file to import; give another one");
      }
      if (flags.dryRun) {
        const context = { kind, importId: "dry-run", updateTimeMicros: Date.now() * 1_000 };
        return compareImport(session, readRows(file, { format, separator }, context));
      }
      return runImport(session, file, {
        kind,
        format,
        separator,
        updateTime: flags.updateTime,
        errors: flags.errors,
        yes: flags.yes === true,
        again: flags.again === true,
        journal: flags.journal,
      });
    },
  );
}

function kindOf({ counts, adjustments }: ImportFlags): ImportKind {
  if (counts) return "counts";
  return adjustments ? "adjustments" : "products";
}

function updateTime(text: string): Timestamp | "now" {
  return text === "now" ? text : timeFromNow("ago")(text);
}

function addExport(program: Command): void {
  defineCommand<[string], LedgerFilterOptions & { format?: FileFormat; yes?: boolean }>(
    program,
    {
      usage: "export",
      summary: "Export products with their details and ledgers to a file",
      description: `<file> is CSV (.csv) or JSON lines (.jsonl); "-" is standard output. "import" accepts the file as it is.
Cells that a spreadsheet would run as a formula begin with an apostrophe, which "import" removes.
Asks before it replaces a file. Needs the role supply or ops.`,
      examples: [
        "npx inventory export - --low 10",
        "npx inventory export - --format jsonl --collection desk",
      ],
    },
    (command) =>
      addLedgerFilters(command.argument("<file>"))
        .addOption(new Option("--format <format>", "instead of the file's extension").choices(FORMATS))
        .option("--yes", "replace the file without asking"),
    async (session, { format: given, yes, ...filters }, file) => {
      const format = formatOf(file, given);
      if (file !== "-" && existsSync(file) && !(await confirm(`Replace ${file}?`, yes))) {
        return EXIT.failed;
      }
      await using sink = file === "-" ? stdoutSink(session) : fileSink(file, new Date());
      const count = await writeCatalog(session, sink, format, filters);
      await sink.finish();
      session.output.note(`Exported ${plural(count, "product")}`);
      return undefined;
    },
  );
}

/** Writes the products that match. Resolves with their number. */
async function writeCatalog(
  session: Session,
  sink: ExportSink,
  format: FileFormat,
  filters: LedgerFilterOptions,
): Promise<number> {
  const progress = new ProgressReporter("exported");
  let count = 0;
  if (format === "csv") await sink.write(CATALOG_CSV_HEADER);
  for await (const { entries, total } of listCatalog(session, filters)) {
    if (session.signal.aborted) throw new CommandError("Interrupted; nothing was written", EXIT.interrupted);
    const lines = entries.map((entry) =>
      format === "csv" ? catalogCsvRecord(entry) : `${JSON.stringify(catalogJson(entry))}\n`,
    );
    await sink.write(lines.join(""));
    count += entries.length;
    const expected = Math.min(total, filters.limit ?? total);
    progress.update({ rows: count, failed: 0, fraction: expected === 0 ? 1 : Math.min(1, count / expected) });
  }
  progress.clear();
  return count;
}

function stdoutSink({ output }: Session): ExportSink {
  return {
    write: (text) => output.write(text),
    finish: async () => undefined,
    [Symbol.asyncDispose]: async () => undefined,
  };
}
