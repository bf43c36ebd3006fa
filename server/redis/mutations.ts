import { UPDATE_AHEAD_MS_MAX } from "../inventory/ledger.ts";
import { CHANGES_KEPT_PER_PRODUCT } from "../inventory/operation.ts";
import {
  isErrorReply,
  isStateReply,
  RESPONSE_MS_MAX,
  type RedisConnection,
  storeError,
  storeUnavailable,
} from "./client.ts";
import { Coalescer } from "./coalescer.ts";
import { instrumented, type RedisInstruments } from "./instruments.ts";
import type { Keys } from "./keys.ts";
import { list, ReplyReader } from "./reply.ts";
import { mutationScript } from "./scripts.ts";

/** Maximum number of calls queued for one connection. */
const QUEUE_MAX = 20_000;
/** Queue timeout of a call while Redis is busy with others: the first seconds of a flash sale. */
const QUEUE_MS_MAX = 5_000;
/** Maximum operations of one batch, and products they may touch in total: about 2 ms of Redis's time. */
const MUTATIONS_PER_BATCH_MAX = 64;
const PRODUCTS_PER_BATCH_MAX = 128;
const BATCHES_IN_FLIGHT_MAX = 2;
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
}

/** Called with each product that a mutation has changed and its new version, before the mutation resolves. */
export type OnAcknowledged = (productId: string, version: number) => void;

interface MutationsOptions {
  readonly operationRetentionMs: number;
  readonly onAcknowledged: OnAcknowledged;
  readonly instruments: RedisInstruments;
}

/** Runs mutations. Those that arrive together share one script call; each is atomic by itself. */
export class Mutations {
  readonly #coalescer: Coalescer<Mutation, ReplyReader>;

  constructor(connection: RedisConnection, options: MutationsOptions) {
    const script = mutationScript();
    const constants = [
      options.operationRetentionMs,
      CHANGES_KEPT_PER_BUCKET,
      CHANGES_KEPT_PER_PRODUCT,
      UPDATE_AHEAD_MS_MAX,
    ];
    this.#coalescer = new Coalescer({
      send: async (batch) => {
        const { keys, operations } = encodeBatch(batch);
        const replies = list(await connection.run(script, keys, [...constants, operations]));
        reportAcknowledged(list(replies.at(-1)), options.onAcknowledged);
        return replies.slice(0, -1).map((reply) => new ReplyReader(reply));
      },
      weightOf: (mutation) => mutation.products,
      batchItemsMax: MUTATIONS_PER_BATCH_MAX,
      batchWeightMax: PRODUCTS_PER_BATCH_MAX,
      inFlightMax: BATCHES_IN_FLIGHT_MAX,
      shouldResend: (mutation, error) => mutation.isIdempotent && !isErrorReply(error),
      ...instrumented("mutations", ({ name }) => name, options.instruments),
      ...callLimits(connection),
    });
    options.instruments.metrics?.addQueue("mutations", () => this.#coalescer.queued);
  }

  /**
   * Runs one mutation. The reply's first field is its status. Rejects with `STORE_UNAVAILABLE` or
   * `OVERLOADED`, and with an `Error` if the script raised one.
   */
  async run(mutation: Mutation): Promise<ReplyReader> {
    const reply = await this.#coalescer.submit(mutation);
    if (reply.peek() === "failed") {
      reply.text();
      throw scriptError(mutation.name, reply.text());
    }
    return reply;
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
}

function reportAcknowledged(changed: readonly unknown[], onAcknowledged: OnAcknowledged): void {
  for (let i = 0; i + 1 < changed.length; i += 2) {
    onAcknowledged(String(changed[i]), Number(changed[i + 1]));
  }
}

/** Options that every coalescer of calls on a connection shares. */
export function callLimits(connection: RedisConnection) {
  return {
    queueMax: QUEUE_MAX,
    responseMsMax: RESPONSE_MS_MAX,
    queueMsMax: QUEUE_MS_MAX,
    errorOf: storeError,
    isReady: () => connection.isReady,
    isUnavailable: () => connection.isUnavailable,
    onceReady: (then: () => void) => connection.onceReady(then),
  };
}

/** A command inside a script can fail with "OOM …" too: a state of the server, not a bug. */
function scriptError(operation: string, reason: string): unknown {
  return isStateReply(reason)
    ? storeUnavailable(new Error(reason))
    : new Error(`Operation ${operation} failed in Redis: ${reason}`);
}

/** The error for a status that no script of this release returns. */
export function unexpectedStatus(status: string): Error {
  return new Error(`A script replied with the unexpected status ${JSON.stringify(status)}`);
}

/** Encodes a batch in the form that run-batch.lua expects. */
function encodeBatch(batch: readonly Mutation[]): { keys: string[]; operations: string } {
  return {
    keys: batch.flatMap(({ keys }) => keys),
    operations: JSON.stringify(batch.map(({ name, keys, args }) => [name, keys.length, args])),
  };
}
