import { UPDATE_AHEAD_MS_MAX } from "../inventory/ledger.ts";
import { CHANGES_KEPT_PER_PRODUCT } from "../inventory/operation.ts";
import {
  isReply,
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

/** Most calls waiting for one connection. */
const WAITING_MAX = 20_000;
/** How long a call waits for a Redis that is busy with others: a flash sale's first seconds. */
const PATIENCE_MS_MAX = 5_000;
/** Operations of one batch, and products they may touch together: about 2 ms of Redis's time. */
const MUTATIONS_PER_BATCH_MAX = 64;
const PRODUCTS_PER_BATCH_MAX = 128;
const BATCHES_IN_FLIGHT_MAX = 2;
/** Changes kept in a bucket's stream while nobody publishes them. */
const CHANGES_KEPT_PER_BUCKET = 100_000;

/** One operation of a batch, as run-batch.lua takes it. */
export interface Mutation {
  readonly name: string;
  readonly keys: readonly string[];
  readonly args: readonly (string | number)[];
  /** How many products it touches, as far as that is known. */
  readonly products: number;
  /** Whether sending it twice does no more than sending it once: its step checks an ID or a fence. */
  readonly isRepeatable: boolean;
}

/** Told of each product that a mutation has changed, with the version it came to, before its caller is answered. */
export type OnAcknowledged = (productId: string, version: number) => void;

interface MutationsOptions {
  readonly operationRetentionMs: number;
  readonly onAcknowledged: OnAcknowledged;
  readonly instruments: RedisInstruments;
}

/** Runs mutations, those that come in together in one script call, each atomic by itself. */
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
        const answer = list(await connection.run(script, keys, [...constants, operations]));
        tellTouched(list(answer.at(-1)), options.onAcknowledged);
        return answer.slice(0, -1).map((reply) => new ReplyReader(reply));
      },
      weightOf: (mutation) => mutation.products,
      batchItemsMax: MUTATIONS_PER_BATCH_MAX,
      batchWeightMax: PRODUCTS_PER_BATCH_MAX,
      inFlightMax: BATCHES_IN_FLIGHT_MAX,
      mayRepeat: (mutation, error) => mutation.isRepeatable && !isReply(error),
      ...instrumented("mutations", ({ name }) => name, options.instruments),
      ...callLimits(connection),
    });
    options.instruments.metrics?.addQueue("mutations", () => this.#coalescer.waiting);
  }

  /**
   * Runs one mutation; the reply's first field is a word. Rejects with `STORE_UNAVAILABLE` or
   * `OVERLOADED`, and with an `Error` where the script ran into one.
   */
  async run(mutation: Mutation): Promise<ReplyReader> {
    const reply = await this.#coalescer.submit(mutation);
    if (reply.peek() === "failed") {
      reply.text();
      throw scriptError(mutation.name, reply.text());
    }
    return reply;
  }

  /** Takes a product over from the Go service's plain key. The ledger follows in the reply; `undefined` where there is none. */
  async adopt(productId: string, keys: Keys): Promise<ReplyReader | undefined> {
    const reply = await this.run({
      name: "adopt_product",
      keys: keys.creating(productId),
      args: [productId],
      products: 1,
      isRepeatable: true,
    });
    return reply.text() === "ok" ? reply : undefined;
  }

  close(): void {
    this.#coalescer.close();
  }
}

function tellTouched(touched: readonly unknown[], onAcknowledged: OnAcknowledged): void {
  for (let i = 0; i + 1 < touched.length; i += 2) {
    onAcknowledged(String(touched[i]), Number(touched[i + 1]));
  }
}

/** What holds for every coalescer of calls on a connection. */
export function callLimits(connection: RedisConnection) {
  return {
    waitingMax: WAITING_MAX,
    answerMsMax: RESPONSE_MS_MAX,
    patienceMsMax: PATIENCE_MS_MAX,
    errorOf: storeError,
    isReady: () => connection.isReady,
    isLongGone: () => connection.isLongGone,
    onceReady: (then: () => void) => connection.onceReady(then),
  };
}

/** Redis says "OOM …" also from inside of a script: a state of the server, and no bug. */
function scriptError(operation: string, reason: string): unknown {
  return isStateReply(reason)
    ? storeUnavailable(new Error(reason))
    : new Error(`Operation ${operation} failed in Redis: ${reason}`);
}

/** The error for a word that no script should answer. */
export function unknownWord(word: string): Error {
  return new Error(`A script of the ledger answered ${JSON.stringify(word)}, which nobody expects`);
}

/** Lays a batch out as run-batch.lua takes it. */
function encodeBatch(batch: readonly Mutation[]): { keys: string[]; operations: string } {
  return {
    keys: batch.flatMap(({ keys }) => keys),
    operations: JSON.stringify(batch.map(({ name, keys, args }) => [name, keys.length, args])),
  };
}
