import { createHash } from "node:crypto";
import { createReadStream, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { CommandError } from "../errors.ts";
import type { ImportKind } from "./rows.ts";

/** What has become of the rows so far. */
export interface Counts {
  readonly applied: number;
  readonly superseded: number;
  readonly failed: number;
}

/** The state of an import of one file to one server. */
export interface JournalState extends Counts {
  readonly format: 1;
  /** The SHA-256 of the file, hexadecimal. */
  readonly sha256: string;
  /** Begins the IDs of counts without a `count_id`. */
  readonly importId: string;
  readonly kind: ImportKind;
  readonly url: string;
  readonly startTime: string;
  readonly updateTimeMicros: number;
  /** Rows from the beginning of the file whose results are known. */
  readonly rows: number;
  /** Length of the file of failed rows. What follows was written for rows that will be sent again. */
  readonly errorBytes: number;
  readonly endTime?: string;
}

/**
 * The journal of an import, a file beside the input. It records after each batch which rows are done, so that the same command
 * continues an interrupted import. The rows after the recorded ones may have been sent as well: they are sent again, which
 * changes nothing, because products have the same time, and counts and adjustments the same ID.
 */
export class Journal {
  readonly path: string;

  constructor(inputFile: string) {
    this.path = `${inputFile}.inventory-import`;
  }

  /** The state of an earlier import, if there is one. */
  read(): JournalState | undefined {
    let text: string;
    try {
      text = readFileSync(this.path, "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw new CommandError(`The journal cannot be read: ${(error as Error).message}`);
    }
    try {
      const state = JSON.parse(text) as JournalState;
      if (state.format === 1) return state;
    } catch {
      // Reported below.
    }
    throw new CommandError(`${this.path} is not a journal of an import; delete it, or give --no-journal`);
  }

  /** Replaces the journal in one step. */
  write(state: JournalState): void {
    const temporary = `${this.path}.new`;
    try {
      writeFileSync(temporary, `${JSON.stringify(state)}\n`);
      renameSync(temporary, this.path);
    } catch (error) {
      throw new CommandError(
        `The journal cannot be written: ${(error as Error).message}; --no-journal imports without one`,
      );
    }
  }

  delete(): void {
    rmSync(this.path, { force: true });
  }
}

/** The SHA-256 of a file, hexadecimal. */
export async function hashFile(file: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}
