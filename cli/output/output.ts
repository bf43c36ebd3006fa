import { once } from "node:events";
import { styleText } from "node:util";
import { type DescMessage, type JsonObject, type MessageShape, toJson } from "@bufbuild/protobuf";
import { printable } from "./text.ts";

/**
 * Where a command prints. Results go to standard output, and everything else (errors, warnings, progress, questions) to
 * standard error, so that a pipe carries results only.
 */
export class Output {
  /** Whether results are printed as JSON: one document, or one a line for lists. */
  readonly json: boolean;

  constructor(json: boolean) {
    this.json = json;
  }

  /** Writes to standard output. Resolves when the reader has room for more. */
  async write(text: string): Promise<void> {
    if (text !== "" && !process.stdout.write(text)) await once(process.stdout, "drain");
  }

  async writeJson(document: unknown): Promise<void> {
    await this.write(`${JSON.stringify(document)}\n`);
  }

  note(text: string): void {
    process.stderr.write(`${text}\n`);
  }

  warn(text: string): void {
    process.stderr.write(
      `${styleText("yellow", "warning:", { stream: process.stderr })} ${printable(text)}\n`,
    );
  }
}

/** Ends the process when the reader of standard output closes it, as with `| head`. */
export function exitOnBrokenPipe(): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    throw error;
  });
  process.stderr.on("error", () => undefined);
}

/** A message as protobuf JSON, with every field, also those with default values. */
export function messageJson<Desc extends DescMessage>(schema: Desc, message: MessageShape<Desc>): JsonObject {
  return toJson(schema, message, { alwaysEmitImplicit: true }) as JsonObject;
}
