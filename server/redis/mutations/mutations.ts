import { UPDATE_AHEAD_MS_MAX } from "../../inventory/ledger.ts";
import { RESPONSE_MS_MAX } from "../connection/client.ts";
import { isErrorReply, refusalOf, storeError, storeRefused } from "../connection/error-replies.ts";
import type { Availability } from "../connection/primaries.ts";
import { type DamagedRecords, recordDamaged, recordKind } from "../damaged-records.ts";
import { instrumented, type RedisInstruments } from "../instruments.ts";
import type { Keys } from "../keys.ts";
import { list, ReplyReader } from "../reply.ts";
import { mutationScript } from "../scripts.ts";
import { NotReplicated } from "./acknowledgement.ts";
import { Coalescer } from "./coalescer.ts";
import { FENCED, type Fence } from "./fence.ts";
import type { WriteConnections } from "./write-connections.ts";

/** Maximum number of calls in one queue. */
const QUEUE_MAX = 20_000;
/** Queue timeout of a call while Redis is busy with others: the first seconds of a flash sale. */
const QUEUE_MS_MAX = 5_000;
/** Maximum operations of one batch, and products they may touch in total: about 2 ms of Redis's time. */
const MUTATIONS_PER_BATCH_MAX = 64;
const PRODUCTS_PER_BATCH_MAX = 128;
/** Changes kept in a bucket's stream. Older ones are trimmed, published or not. */
const CHANGES_KEPT_PER_BUCKET = 100_000;

/** One operation of a batch, in the form that run-batch.lua expects. */
export interface Mutation {
  readonly name: string;
  readonly keys: readonly string[];
  readonly args: readonly (string | number)[];
  /** Number of products that it touches, as far as that is known before it runs. */
  readonly products: number;
  /** Whether it may be sent twice: its step recognises a repetition by an ID or a fence, and then writes nothing. */
  readonly isIdempotent: boolean;
  /** Recorded with each change that it makes. Absent: unknown. */
  readonly actor?: string | undefined;
}

/** Called with each product that a mutation has changed and its new version, before the mutation resolves. */
export type OnAcknowledged = (productId: string, version: number) => void;

interface MutationsOptions {
  readonly operationRetentionMs: number;
  readonly changesKeptPerProduct: number;
  readonly onAcknowledged: OnAcknowledged;
  readonly damagedRecords: DamagedRecords;
  readonly instruments: RedisInstruments;
}

/** Runs mutations. Those that arrive together share one script call; each is atomic by itself. */
export class Mutations {
  readonly #coalescer: Coalescer<Mutation, ReplyReader>;
  readonly #connections: WriteConnections;
  readonly #keys: Keys;

  constructor(connections: WriteConnections, fence: Fence, keys: Keys, options: MutationsOptions) {
    this.#connections = connections;
    this.#keys = keys;
    const script = mutationScript();
    const constants = [
      options.operationRetentionMs,
      CHANGES_KEPT_PER_BUCKET,
      options.changesKeptPerProduct,
      UPDATE_AHEAD_MS_MAX,
    ];
    this.#coalescer = new Coalescer({
      send: async (batch) => {
        const encoded = encodeBatch(batch);
        const expected = fence.expectation(encoded.keys);
        const args = [
          ...constants,
          encoded.operations,
          connections.waitsForReplicas ? "1" : "0",
          ...expected.args,
        ];
        const replies = list(await connections.run(script, [...encoded.keys, ...expected.keys], args));
        reportDamaged(list(replies.at(-3)), options.damagedRecords);
        reportAcknowledged(list(replies.at(-2)), options.onAcknowledged);
        noteNewest(list(replies.at(-1)), fence, keys);
        return replies.slice(0, -3).map((reply) => new ReplyReader(reply));
      },
      weightOf: (mutation) => mutation.products,
      batchItemsMax: MUTATIONS_PER_BATCH_MAX,
      batchWeightMax: PRODUCTS_PER_BATCH_MAX,
      inFlightMax: connections.capacity,
      shouldResend: (mutation, error) => {
        if (isFenced(error)) {
          // Nothing ran. The connections check the primary again before they take the batch.
          connections.reconnect();
          return true;
        }
        return mutation.isIdempotent && !isErrorReply(error) && !(error instanceof NotReplicated);
      },
      ...instrumented("mutations", ({ name }) => name, options.instruments),
      ...callLimits(connections),
    });
    options.instruments.metrics?.addQueue("mutations", () => this.#coalescer.queued);
  }

  /**
   * Runs one mutation. The reply's first field is its status. Rejects with `STORE_UNAVAILABLE`, `OVERLOADED` or
   * `RECORD_DAMAGED`, and with an `Error` if the script raised one: nothing was written then.
   */
  async run(mutation: Mutation): Promise<ReplyReader> {
    const reply = await this.#coalescer.submit(mutation);
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

  /** Resolves if mutations can run now. Rejects as `run` does. */
  async probe(): Promise<void> {
    // With the key of a bucket, the batch is fenced and waits for replicas like every other one.
    await this.run({
      name: "probe",
      keys: [this.#keys.layout()],
      args: [this.#keys.buckets],
      products: 1,
      isIdempotent: true,
    });
  }

  /** Adopts a product from the Go service's plain key. Resolves with the ledger, or with `undefined` if there is none. */
  async adopt(productId: string, keys: Keys): Promise<ReplyReader | undefined> {
    const reply = await this.run({
      name: "adopt_product",
      keys: keys.creationKeys(productId),
      args: [productId],
      products: 1,
      isIdempotent: true,
    });
    return reply.text() === "ok" ? reply : undefined;
  }

  close(): void {
    this.#coalescer.close();
  }

  #scriptError(operation: string, text: string): unknown {
    const refusal = refusalOf(text);
    if (refusal === undefined) {
      return new Error(`Operation ${operation} failed in Redis: ${text}`);
    }
    this.#connections.noteErrorReply(text);
    return storeRefused(refusal, new Error(text));
  }
}

/** Kind, key and reason of each damaged record, in turn. */
function reportDamaged(damage: readonly unknown[], damagedRecords: DamagedRecords): void {
  for (let i = 0; i + 2 < damage.length; i += 3) {
    damagedRecords.found(recordKind(String(damage[i])), String(damage[i + 1]), String(damage[i + 2]));
  }
}

function reportAcknowledged(changed: readonly unknown[], onAcknowledged: OnAcknowledged): void {
  for (let i = 0; i + 1 < changed.length; i += 2) {
    onAcknowledged(String(changed[i]), Number(changed[i + 1]));
  }
}

/** Passes the newest change of each stream to the fence: key, entry ID, product ID, version. */
function noteNewest(entries: readonly unknown[], fence: Fence, keys: Keys): void {
  for (let i = 0; i + 3 < entries.length; i += 4) {
    const bucket = keys.bucketIn(String(entries[i]));
    if (bucket !== undefined) {
      const [, entryId, productId, version] = entries.slice(i, i + 4);
      fence.acknowledged(bucket, {
        entryId: String(entryId),
        productId: String(productId),
        version: Number(version),
      });
    }
  }
}

function isFenced(error: unknown): boolean {
  return isErrorReply(error) && error.message.startsWith(FENCED);
}

/** Options that every coalescer of calls on a connection shares. */
export function callLimits(connection: Availability) {
  return {
    queueMax: QUEUE_MAX,
    responseMsMax: RESPONSE_MS_MAX,
    queueMsMax: QUEUE_MS_MAX,
    errorOf: storeError,
    isReady: () => connection.isReady,
    unavailability: () => connection.unavailability,
    onceReady: (then: () => void) => connection.onceReady(then),
  };
}

/** The error for a status that no script of this release returns. */
export function unexpectedStatus(status: string): Error {
  return new Error(`A script replied with the unexpected status ${JSON.stringify(status)}`);
}

/** Encodes a batch in the form that run-batch.lua expects. */
function encodeBatch(batch: readonly Mutation[]): { keys: string[]; operations: string } {
  return {
    keys: batch.flatMap(({ keys }) => keys),
    operations: JSON.stringify(
      batch.map(({ name, keys, args, actor = "" }) => [name, keys.length, args, actor]),
    ),
  };
}
