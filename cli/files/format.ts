import { extname } from "node:path";
import { usageError } from "../errors.ts";

export type FileFormat = "csv" | "jsonl";

export const FORMATS: readonly FileFormat[] = ["csv", "jsonl"];
const BY_EXTENSION: Readonly<Record<string, FileFormat>> = {
  ".csv": "csv",
  ".jsonl": "jsonl",
  ".ndjson": "jsonl",
};

/** The format given, or that of the file's extension. Standard input and output are CSV by default. */
export function formatOf(file: string, given: FileFormat | undefined): FileFormat {
  const format = given ?? (file === "-" ? "csv" : BY_EXTENSION[extname(file).toLowerCase()]);
  if (format === undefined) {
    throw usageError(
      `${JSON.stringify(file)} ends neither with .csv nor with .jsonl: give --format csv or jsonl`,
    );
  }
  return format;
}
