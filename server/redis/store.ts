import type { Logger } from "pino";
import type { Ledger, Stock, StockChange } from "../inventory/ledger.ts";
import { UPDATE_AHEAD_MS_MAX } from "../inventory/ledger.ts";
import {
  CHANGES_KEPT_PER_PRODUCT,
  fingerprint,
  OPERATION_RETENTION_MS_DEFAULT,
} from "../inventory/operation.ts";
import type { ProductDelete, ProductUpsert, PutResult } from "../inventory/product-event.ts";
import {
  idReused,
  onHandOutOfRange,
  productUnknown,
  updateTooFarAhead,
  versionMismatch,
} from "../inventory/refusals.ts";
import type { ChangesPage, InventoryStore, StockAdjustment, StockCount } from "../inventory/store.ts";
import { isReply, RedisConnection, type RedisEndpoint, storeError } from "./client.ts";
import { Coalescer } from "./coalescer.ts";
import { checkLayout, warnOfDurability } from "./fitness.ts";
import { BUCKETS_DEFAULT, Keys } from "./keys.ts";
import { decodeChange, encodeDetails, list, ReplyReader, readLedger, stockOf } from "./reply.ts";
import { mutationScript, readScript } from "./scripts.ts";

/** A call that Redis has not answered by then is refused: within a second, as callers are promised. */
const ANSWER_MS_MAX = 900;
/** Operations of one mutation batch, and products they may touch together: about 2 ms of Redis's time. */
const MUTATIONS_PER_BATCH_MAX = 64;
const PRODUCTS_PER_MUTATION_BATCH_MAX = 128;
const MUTATION_BATCHES_IN_FLIGHT_MAX = 2;
/** Products of one read batch: about a millisecond of Redis's time. */
const PRODUCTS_PER_READ_BATCH_MAX = 512;
const READ_BATCHES_IN_FLIGHT_MAX = 4;
const WAITING_MAX = 20_000;
/** Changes kept in a bucket's stream while nobody publishes them. */
const CHANGES_KEPT_PER_BUCKET = 100_000;

interface RedisStoreOptions {
  readonly endpoint: RedisEndpoint;
  readonly log: Logger;
  /** Fixed for the life of the data; see `Keys`. */
  readonly buckets?: number;
  readonly operationRetentionMs?: number;
}

/** One operation of a mutation batch, as run-batch.lua takes it. */
interface Mutation {
  readonly name: string;
  readonly keys: readonly string[];
  readonly args: readonly (string | number)[];
  /** Whether sending it twice does no more than sending it once: its step checks an ID or a fence. */
  readonly isRepeatable: boolean;
}

/** The ledger in Redis. Every mutation is one operation of scripts/, run with others in one script call. */
export class RedisStore implements InventoryStore {
  readonly #keys: Keys;
  readonly #writes: RedisConnection;
  readonly #reads: RedisConnection;
  readonly #mutations: Coalescer<Mutation, ReplyReader>;
  readonly #products: Coalescer<string, ReplyReader>;

  constructor(options: RedisStoreOptions) {
    const { endpoint, log } = options;
    this.#keys = new Keys(options.buckets ?? BUCKETS_DEFAULT);
    this.#writes = new RedisConnection("writes", endpoint, log, async (client) => {
      await checkLayout(client, this.#keys);
      await warnOfDurability(client, log);
    });
    this.#reads = new RedisConnection("reads", endpoint, log);
    const mutate = mutationScript();
    const constants = [
      options.operationRetentionMs ?? OPERATION_RETENTION_MS_DEFAULT,
      CHANGES_KEPT_PER_BUCKET,
      CHANGES_KEPT_PER_PRODUCT,
      UPDATE_AHEAD_MS_MAX,
    ];
    this.#mutations = new Coalescer({
      send: async (batch) => {
        const { keys, args } = encodeBatch(batch);
        const replies = list(await this.#writes.run(mutate, keys, [...constants, ...args]));
        return replies.map((reply) => new ReplyReader(reply));
      },
      weightOf: (mutation) => mutation.keys.length / KEYS_PER_PRODUCT,
      batchItemsMax: MUTATIONS_PER_BATCH_MAX,
      batchWeightMax: PRODUCTS_PER_MUTATION_BATCH_MAX,
      inFlightMax: MUTATION_BATCHES_IN_FLIGHT_MAX,
      mayRepeat: (mutation, error) => mutation.isRepeatable && !isReply(error),
      ...this.#common(this.#writes),
    });
    const read = readScript();
    this.#products = new Coalescer({
      send: async (batch) => {
        const distinct = [...new Set(batch)];
        const keys = distinct.flatMap((id) => [
          this.#keys.ledger(id),
          this.#keys.details(id),
          this.#keys.plain(id),
        ]);
        const replies = list(await this.#reads.run(read, keys, []));
        const byId = new Map(distinct.map((id, index) => [id, replies[index]]));
        return batch.map((id) => new ReplyReader(byId.get(id)));
      },
      weightOf: () => 1,
      batchItemsMax: PRODUCTS_PER_READ_BATCH_MAX,
      batchWeightMax: PRODUCTS_PER_READ_BATCH_MAX,
      inFlightMax: READ_BATCHES_IN_FLIGHT_MAX,
      mayRepeat: (_, error) => !isReply(error),
      ...this.#common(this.#reads),
    });
  }

  /** Resolves when Redis serves, or after `waitMs` if it is away. Rejects with `RedisUnfit` where it must not be used. */
  async start(waitMs: number): Promise<void> {
    const { promise: timeout, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, waitMs);
    try {
      await Promise.race([Promise.all([this.#writes.firstReady, this.#reads.firstReady]), timeout]);
    } finally {
      clearTimeout(timer);
    }
  }

  async getStock(productId: string): Promise<Stock> {
    const product = await this.#read(productId);
    if (product === undefined || product.ledger.deleted) {
      throw productUnknown(productId);
    }
    return stockOf(product.ledger, product.updateTimeMs, product.details);
  }

  async batchGetStock(productIds: readonly string[]): Promise<(Stock | undefined)[]> {
    const products = await Promise.all(productIds.map((id) => this.#read(id)));
    return products.map((product) =>
      product === undefined || product.ledger.deleted
        ? undefined
        : stockOf(product.ledger, product.updateTimeMs, product.details),
    );
  }

  async getLedger(productId: string): Promise<Ledger> {
    const product = await this.#read(productId);
    if (product === undefined) {
      throw productUnknown(productId);
    }
    return product.ledger;
  }

  async listChanges(productId: string, page: ChangesPage): Promise<StockChange[]> {
    await this.getLedger(productId);
    if (page.beforeVersion !== undefined && page.beforeVersion <= 1) {
      return [];
    }
    const newest = page.beforeVersion === undefined ? "+" : `(${page.beforeVersion}-0`;
    try {
      const entries = await this.#reads.client.xrevrange(
        this.#keys.history(productId),
        newest,
        "-",
        "COUNT",
        page.limit,
      );
      return entries.map(decodeChange);
    } catch (error) {
      throw storeError(error);
    }
  }

  async putProduct(event: ProductUpsert): Promise<PutResult> {
    const { productId, updateTimeMicros, declared, details } = event;
    const reply = await this.#mutations.submit({
      name: "put_product",
      keys: [
        ...this.#recordKeys(productId),
        this.#keys.details(productId),
        this.#keys.products(this.#keys.bucketOf(productId)),
        this.#keys.plain(productId),
      ],
      args: [
        productId,
        updateTimeMicros ?? "",
        declared ?? "",
        details === undefined ? "" : encodeDetails(details),
      ],
      isRepeatable: updateTimeMicros !== undefined,
    });
    return putResult(event, reply);
  }

  async deleteProduct(event: ProductDelete): Promise<PutResult> {
    const { productId, updateTimeMicros } = event;
    const reply = await this.#mutations.submit({
      name: "delete_product",
      keys: this.#creationKeys(productId),
      args: [productId, updateTimeMicros ?? ""],
      isRepeatable: updateTimeMicros !== undefined,
    });
    return putResult(event, reply);
  }

  async countStock(count: StockCount): Promise<Ledger> {
    const { productId, countId, reason } = count;
    const print = fingerprint([productId, count.count, count.expectedVersion, reason]);
    const [word, reply] = await this.#mutateKnown(productId, {
      name: "count_stock",
      keys: [...this.#recordKeys(productId), this.#keys.operation("count", countId)],
      args: [productId, count.count, count.expectedVersion ?? "", countId, reason, print],
      isRepeatable: true,
    });
    switch (word) {
      case "ok":
        return readLedger(productId, reply).ledger;
      case "reused":
        throw idReused("count_id", countId);
      case "version":
        throw versionMismatch(productId, count.expectedVersion ?? 0, reply.integer());
      default:
        throw unknownWord(word);
    }
  }

  async adjustStock(adjustment: StockAdjustment): Promise<Ledger> {
    const { productId, delta, adjustmentId, reason } = adjustment;
    const [word, reply] = await this.#mutateKnown(productId, {
      name: "adjust_stock",
      keys: [...this.#recordKeys(productId), this.#keys.operation("adjust", adjustmentId)],
      args: [productId, delta, adjustmentId, reason, fingerprint([productId, delta, reason])],
      isRepeatable: true,
    });
    switch (word) {
      case "ok":
        return readLedger(productId, reply).ledger;
      case "reused":
        throw idReused("adjustment_id", adjustmentId);
      case "range":
        throw onHandOutOfRange(productId, delta, reply.integer());
      default:
        throw unknownWord(word);
    }
  }

  async setSafetyStock(productId: string, safety: number): Promise<Ledger> {
    const [word, reply] = await this.#mutateKnown(productId, {
      name: "set_safety_stock",
      keys: this.#recordKeys(productId),
      args: [productId, safety],
      isRepeatable: false,
    });
    if (word !== "ok") {
      throw unknownWord(word);
    }
    return readLedger(productId, reply).ledger;
  }

  async unreadyReason(): Promise<string | undefined> {
    return this.#writes.unreadyReason ?? this.#reads.unreadyReason;
  }

  async close(): Promise<void> {
    this.#mutations.close();
    this.#products.close();
    this.#writes.close();
    this.#reads.close();
  }

  #common(connection: RedisConnection) {
    return {
      waitingMax: WAITING_MAX,
      answerMsMax: ANSWER_MS_MAX,
      errorOf: storeError,
      isReady: () => connection.isReady,
      isLongGone: () => connection.isLongGone,
      onceReady: (then: () => void) => connection.onceReady(then),
    };
  }

  /** The product as it is, adopted from a plain key if need be; `undefined` where there is none. */
  async #read(
    productId: string,
  ): Promise<{ ledger: Ledger; updateTimeMs: number; details: string | undefined } | undefined> {
    const reply = await this.#products.submit(productId);
    const word = reply.text();
    switch (word) {
      case "ok": {
        const { ledger, updateTimeMs } = readLedger(productId, reply);
        return { ledger, updateTimeMs, details: reply.optionalText() };
      }
      case "adoptable": {
        const adopted = await this.#adopt(productId);
        return adopted && { ...readLedger(productId, adopted), details: undefined };
      }
      case "absent":
        return undefined;
      default:
        throw unknownWord(word);
    }
  }

  /** Runs a mutation of a product that must exist; looks for a plain key to adopt where it does not. */
  async #mutateKnown(productId: string, mutation: Mutation): Promise<[string, ReplyReader]> {
    let reply = await this.#mutations.submit(mutation);
    let word = reply.text();
    if (word === "absent" && (await this.#adopt(productId)) !== undefined) {
      reply = await this.#mutations.submit(mutation);
      word = reply.text();
    }
    if (word === "absent" || word === "unknown") {
      throw productUnknown(productId);
    }
    return [word, reply];
  }

  async #adopt(productId: string): Promise<ReplyReader | undefined> {
    const reply = await this.#mutations.submit({
      name: "adopt_product",
      keys: this.#creationKeys(productId),
      args: [productId],
      isRepeatable: true,
    });
    return reply.text() === "ok" ? reply : undefined;
  }

  /** The keys of every operation that records a change, in the order that the scripts take. */
  #recordKeys(productId: string): string[] {
    return [
      this.#keys.ledger(productId),
      this.#keys.history(productId),
      this.#keys.changes(this.#keys.bucketOf(productId)),
    ];
  }

  /** The keys of an operation that may bring a product into being. */
  #creationKeys(productId: string): string[] {
    return [
      ...this.#recordKeys(productId),
      this.#keys.products(this.#keys.bucketOf(productId)),
      this.#keys.plain(productId),
    ];
  }
}

/** Ledger, history and change stream: what `record` in scripts/ledger.lua writes. */
const KEYS_PER_PRODUCT = 3;

function putResult(event: ProductUpsert | ProductDelete, reply: ReplyReader): PutResult {
  const word = reply.text();
  switch (word) {
    case "applied":
    case "stale":
      return { applied: word === "applied", ledger: readLedger(event.productId, reply).ledger };
    case "future":
      throw updateTooFarAhead("update_time", event.updateTimeMicros ?? 0, reply.integer());
    default:
      throw unknownWord(word);
  }
}

function unknownWord(word: string): Error {
  return new Error(`A script of the ledger answered ${JSON.stringify(word)}, which nobody expects`);
}

/** Lays a batch out as run-batch.lua takes it: each key once, and operations that point at them. */
function encodeBatch(batch: readonly Mutation[]): { keys: string[]; args: (string | number)[] } {
  const places = new Map<string, number>();
  const args: (string | number)[] = [];
  for (const mutation of batch) {
    args.push(mutation.name, mutation.keys.length);
    for (const key of mutation.keys) {
      const place = places.get(key) ?? places.size + 1;
      places.set(key, place);
      args.push(place);
    }
    args.push(mutation.args.length, ...mutation.args);
  }
  return { keys: [...places.keys()], args };
}
