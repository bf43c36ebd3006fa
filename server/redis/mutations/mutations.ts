import { refusalOf, storeRefused } from "../connection/error-replies.ts";
import { recordDamaged, recordKind } from "../damaged-records.ts";
import type { RedisInstruments } from "../instruments.ts";
import type { Keys } from "../keys.ts";
import type { ReplyReader } from "../reply.ts";
import type { Mutation, MutationWriter } from "./mutation.ts";

/** Runs mutations. Those that arrive together share one script call; each is atomic by itself. */
export class Mutations {
  readonly #writer: MutationWriter;
  readonly #keys: Keys;

  constructor(writer: MutationWriter, keys: Keys, instruments: RedisInstruments) {
    this.#writer = writer;
    this.#keys = keys;
    instruments.metrics?.addQueue("mutations", () => writer.queued);
  }

  /**
   * Runs one mutation. The reply's first field is its status. Rejects with `STORE_UNAVAILABLE`, `OVERLOADED` or
   * `RECORD_DAMAGED`, and with an `Error` if the script raised one: nothing was written then.
   */
  async run(mutation: Mutation): Promise<ReplyReader> {
    const reply = await this.#writer.submit(mutation);
    switch (reply.peek()) {
      case "damaged":
        reply.text();
        throw recordDamaged(recordKind(reply.text()), reply.text(), reply.text());
      case "failed":
        reply.text();
        throw this.#scriptError(mutation.name, reply.text());
      default:
        return reply;
    }
  }

  /** Resolves if mutations can run now: in a Cluster, at one primary at least. Rejects as `run` does. */
  async probe(): Promise<void> {
    await this.#writer.probe((bucket) =>
      // With the key of a bucket, the batch is fenced and waits for replicas like every other one.
      this.run({
        name: "probe",
        keys: [this.#keys.marker(bucket)],
        args: [this.#keys.buckets],
        products: 1,
        isIdempotent: true,
      }),
    );
  }

  close(): void {
    this.#writer.close();
  }

  #scriptError(operation: string, text: string): unknown {
    const refusal = refusalOf(text);
    if (refusal === undefined) {
      return new Error(`Operation ${operation} failed in Redis: ${text}`);
    }
    this.#writer.noteErrorReply(text);
    return storeRefused(refusal, new Error(text));
  }
}

/** The error for a status that no script of this release returns. */
export function unexpectedStatus(status: string): Error {
  return new Error(`A script replied with the unexpected status ${JSON.stringify(status)}`);
}
