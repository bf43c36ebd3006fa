import { once } from "node:events";
import { createWriteStream, existsSync, renameSync, rmSync, utimesSync } from "node:fs";
import { CommandError } from "../errors.ts";

/** Where an export is written: a file that appears once it is complete, or standard output. */
export interface ExportSink extends AsyncDisposable {
  /** Resolves when there is room for more. */
  write(text: string): Promise<void>;
  /** Makes the file visible. */
  finish(): Promise<void>;
}

export function fileSink(file: string, startTime: Date): ExportSink {
  const partial = `${file}.partial`;
  const stream = createWriteStream(partial);
  let failure: Error | undefined;
  stream.on("error", (error) => {
    failure = error;
  });
  const throwIfFailed = (): void => {
    if (failure !== undefined) throw new CommandError(`The export cannot be written: ${failure.message}`);
  };
  const close = async (): Promise<void> => {
    if (stream.closed) return;
    const closed = once(stream, "close");
    stream.end();
    await closed.catch(() => undefined);
  };
  return {
    async write(text) {
      throwIfFailed();
      if (!stream.write(text)) await once(stream, "drain").catch(() => undefined);
      throwIfFailed();
    },
    async finish() {
      await close();
      throwIfFailed();
      // An import takes the time of the file as the time of its data: what changes after the start of the export is newer.
      utimesSync(partial, startTime, startTime);
      renameSync(partial, file);
    },
    async [Symbol.asyncDispose]() {
      await close();
      if (existsSync(partial)) rmSync(partial);
    },
  };
}
