import type { Logger } from "pino";
import {
  CHANGES_KEPT_DEFAULT,
  type ReferenceChanges,
  type ReferencePage,
  type ReferenceQuery,
} from "../inventory/change-history.ts";
import type { Collection, CollectionEvent, CollectionResult } from "../inventory/collection.ts";
import type { Ledger, Stock, StockChange } from "../inventory/ledger.ts";
import { fingerprint, OPERATION_RETENTION_MS_DEFAULT } from "../inventory/operation.ts";
import type { ProductDelete, ProductUpsert, PutResult } from "../inventory/product-event.ts";
import {
  declaredOutOfRange,
  idReused,
  onHandOutOfRange,
  productUnknown,
  updateTooFarAhead,
  versionMismatch,
} from "../inventory/refusals.ts";
import type { ChangesPage, InventoryStore, StockAdjustment, StockCount } from "../inventory/store.ts";
import type { HealthPart } from "../ops/health.ts";
import type { RedisEndpoint } from "./connection/endpoint.ts";
import { openPrimaries } from "./connection/open-primaries.ts";
import type { Primaries } from "./connection/primaries.ts";
import { DamagedRecords } from "./damaged-records.ts";
import { RedisHistory } from "./history.ts";
import type { RedisInstruments } from "./instruments.ts";
import { BUCKETS_DEFAULT, Keys, type OperationKind } from "./keys.ts";
import type { OnAcknowledged } from "./mutations/batch.ts";
import { ClusterWriter } from "./mutations/cluster-writer.ts";
import { Fence } from "./mutations/fence.ts";
import type { Mutation, MutationWriter } from "./mutations/mutation.ts";
import { Mutations, unexpectedStatus } from "./mutations/mutations.ts";
import { openWriter } from "./mutations/open-writer.ts";
import { WriteProbe } from "./mutations/write-probe.ts";
import { openReservations, type ReservationForm } from "./open-reservations.ts";
import { PlainKeys } from "./plain-keys.ts";
import { ProductReader } from "./product-reader.ts";
import {
  decodeCollections,
  decodeLedger,
  encodeCollection,
  encodeDelivery,
  encodeDetails,
  type ReplyReader,
  stockOf,
} from "./reply.ts";
import type { RedisReservations } from "./reservations.ts";
import { ShardedReservations } from "./sharded/reservations.ts";

/** The bucket whose slot has the collections. */
const COLLECTIONS_BUCKET = 0;
/** The last argument of a seller's event whose product's plain key was not read: that is needed only without a ledger. */
const PLAIN_UNREAD = "";

interface RedisStoreOptions {
  readonly endpoint: RedisEndpoint;
  readonly log: Logger;
  /** The number of buckets cannot change while there is data. */
  readonly keys?: Keys;
  readonly operationRetentionMs?: number;
  /** Changes kept of each product. */
  readonly changesKept?: number;
  readonly onAcknowledged?: OnAcknowledged;
  readonly damagedRecords?: DamagedRecords;
  readonly instruments?: RedisInstruments;
  /** The default depends on the endpoint. */
  readonly reservations?: ReservationForm;
}

/** The ledger in Redis. Each mutation is one operation of scripts/run-batch.lua. */
export class RedisStore implements InventoryStore {
  readonly reservations: RedisReservations | ShardedReservations;
  readonly #keys: Keys;
  readonly #damagedRecords: DamagedRecords;
  readonly #fence: Fence;
  readonly #writer: MutationWriter;
  readonly #primaries: Primaries;
  readonly #mutations: Mutations;
  readonly #plainKeys: PlainKeys;
  readonly #probe: WriteProbe;
  readonly #products: ProductReader;
  readonly #history: RedisHistory;

  constructor(options: RedisStoreOptions) {
    const { endpoint, log, instruments = {} } = options;
    this.#keys = options.keys ?? new Keys(BUCKETS_DEFAULT);
    this.#damagedRecords = options.damagedRecords ?? new DamagedRecords(log, instruments.metrics);
    this.#fence = new Fence(this.#keys, log, instruments.metrics);
    this.#primaries = openPrimaries({ endpoint, keys: this.#keys, log, instruments });
    this.#writer = openWriter({
      primaries: this.#primaries,
      acks: endpoint.acks ?? 0,
      fence: this.#fence,
      keys: this.#keys,
      log,
      batch: {
        operationRetentionMs: options.operationRetentionMs ?? OPERATION_RETENTION_MS_DEFAULT,
        changesKeptPerProduct: options.changesKept ?? CHANGES_KEPT_DEFAULT,
        onAcknowledged: options.onAcknowledged ?? (() => {}),
        damagedRecords: this.#damagedRecords,
        instruments,
      },
    });
    this.#mutations = new Mutations(this.#writer, this.#keys, instruments);
    this.#plainKeys = new PlainKeys(this.#keys, this.#primaries, this.#mutations);
    this.reservations = openReservations(
      options.reservations ?? (endpoint.cluster ? "sharded" : "together"),
      {
        keys: this.#keys,
        mutations: this.#mutations,
        plainKeys: this.#plainKeys,
        primaries: this.#primaries,
        damagedRecords: this.#damagedRecords,
        readLedgers: (ids) => this.batchGetLedgers(ids),
        metrics: instruments.metrics,
      },
    );
    this.#history = new RedisHistory(this.#keys, this.#primaries, this.#damagedRecords);
    this.#probe = new WriteProbe(() => this.#mutations.probe(), log);
    this.#products = new ProductReader(this.#primaries, this.#plainKeys, {
      keys: this.#keys,
      damagedRecords: this.#damagedRecords,
      instruments,
    });
  }

  /** Resolves when Redis is ready, or after `waitMs` if it is not. Rejects with `RedisRequirementError` if it must not be used. */
  async start(waitMs: number): Promise<void> {
    const { promise: timeout, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, waitMs);
    try {
      await Promise.race([Promise.all([this.#writer.firstReady, this.#primaries.firstReady]), timeout]);
    } finally {
      clearTimeout(timer);
    }
  }

  async getStock(productId: string): Promise<Stock> {
    const product = await this.#products.read(productId);
    if (product === undefined || product.ledger.deleted) {
      throw productUnknown(productId);
    }
    return stockOf(product.ledger, product.updateTimeMs, product.details);
  }

  async batchGetStock(productIds: readonly string[]): Promise<(Stock | undefined)[]> {
    const products = await Promise.all(productIds.map((id) => this.#products.readUnlessDamaged(id)));
    return products.map((product) =>
      product === undefined || product.ledger.deleted
        ? undefined
        : stockOf(product.ledger, product.updateTimeMs, product.details),
    );
  }

  async getLedger(productId: string): Promise<Ledger> {
    const product = await this.#products.read(productId);
    if (product === undefined) {
      throw productUnknown(productId);
    }
    return product.ledger;
  }

  async batchGetLedgers(productIds: readonly string[]): Promise<(Ledger | undefined)[]> {
    const products = await Promise.all(productIds.map((id) => this.#products.readUnlessDamaged(id)));
    return products.map((product) => product?.ledger);
  }

  bucketOf(productId: string): number {
    return this.#keys.bucketOf(productId);
  }

  async listChanges(productId: string, page: ChangesPage): Promise<StockChange[]> {
    await this.getLedger(productId);
    return this.#history.list(productId, page);
  }

  async findChanges(query: ReferenceQuery, page: ReferencePage): Promise<ReferenceChanges> {
    if (query.productId !== undefined) {
      await this.getLedger(query.productId);
    }
    return this.#history.find(query, page);
  }

  async putProduct(event: ProductUpsert): Promise<PutResult> {
    const { productId, updateTimeMicros, declared, details, actor } = event;
    const mutation: Mutation = {
      name: "put_product",
      keys: this.#keys.upsertKeys(productId),
      args: [
        productId,
        updateTimeMicros ?? "",
        declared ?? "",
        details === undefined ? "" : encodeDetails(details),
        event.delivery === undefined ? "" : encodeDelivery(event.delivery),
        PLAIN_UNREAD,
      ],
      products: 1,
      isIdempotent: updateTimeMicros !== undefined,
      actor,
    };
    let reply = await this.#mutations.run(mutation);
    if (reply.peek() === "absent") {
      reply = await this.#runNew(productId, mutation);
    }
    return putResult(event, reply);
  }

  async deleteProduct(event: ProductDelete): Promise<PutResult> {
    const { productId, updateTimeMicros, actor } = event;
    const mutation: Mutation = {
      name: "delete_product",
      keys: this.#keys.creationKeys(productId),
      args: [productId, updateTimeMicros ?? "", PLAIN_UNREAD],
      products: 1,
      isIdempotent: updateTimeMicros !== undefined,
      actor,
    };
    let reply = await this.#mutations.run(mutation);
    if (reply.peek() === "absent") {
      reply = await this.#runNew(productId, mutation);
    }
    return putResult(event, reply);
  }

  async countStock(count: StockCount): Promise<Ledger> {
    const { productId, countId, reason, actor } = count;
    const contentFingerprint = fingerprint([productId, count.count, count.expectedVersion, reason]);
    const [status, reply] = await this.#mutateKnown(productId, {
      name: "count_stock",
      keys: this.#correctionKeys(productId, "count", countId),
      args: [
        productId,
        count.count,
        String(count.expectedVersion ?? ""),
        countId,
        reason,
        contentFingerprint,
      ],
      products: 1,
      isIdempotent: true,
      actor,
    });
    switch (status) {
      case "ok":
        return decodeLedger(productId, reply.text()).ledger;
      case "reused":
        throw idReused("count_id", countId);
      case "version":
        throw versionMismatch(productId, count.expectedVersion ?? 0n, reply.integer());
      default:
        throw unexpectedStatus(status);
    }
  }

  async adjustStock(adjustment: StockAdjustment): Promise<Ledger> {
    const { productId, delta, adjustmentId, reason, actor } = adjustment;
    const [status, reply] = await this.#mutateKnown(productId, {
      name: "adjust_stock",
      keys: this.#correctionKeys(productId, "adjust", adjustmentId),
      args: [productId, delta, adjustmentId, reason, fingerprint([productId, delta, reason])],
      products: 1,
      isIdempotent: true,
      actor,
    });
    switch (status) {
      case "ok":
        return decodeLedger(productId, reply.text()).ledger;
      case "reused":
        throw idReused("adjustment_id", adjustmentId);
      case "range":
        throw onHandOutOfRange(productId, delta, reply.integer());
      default:
        throw unexpectedStatus(status);
    }
  }

  async setSafetyStock(productId: string, safety: number, actor?: string): Promise<Ledger> {
    const [status, reply] = await this.#mutateKnown(productId, {
      name: "set_safety_stock",
      keys: this.#keys.recordKeys(productId),
      args: [productId, safety],
      products: 1,
      isIdempotent: false,
      actor,
    });
    if (status !== "ok") {
      throw unexpectedStatus(status);
    }
    return decodeLedger(productId, reply.text()).ledger;
  }

  async putCollection(event: CollectionEvent): Promise<CollectionResult> {
    const { collectionId, collection, updateTimeMicros } = event;
    const reply = await this.#mutations.run({
      name: "put_collection",
      keys: [this.#keys.collections()],
      args: [
        collectionId,
        updateTimeMicros ?? "",
        collection === undefined ? "" : encodeCollection(collection, event.delivery),
      ],
      products: 1,
      isIdempotent: updateTimeMicros !== undefined,
    });
    const status = reply.text();
    switch (status) {
      case "applied":
      case "unchanged":
      case "stale":
        return { applied: status !== "stale", changed: status === "applied" };
      case "future":
        throw updateTooFarAhead(event, reply.integer());
      default:
        throw unexpectedStatus(status);
    }
  }

  async listCollections(): Promise<Collection[]> {
    const key = this.#keys.collections();
    const entries = await this.#primaries.send(COLLECTIONS_BUCKET, (client) =>
      client.hgetall(key).catch((error) => {
        this.#damagedRecords.foundForeignType("collection", key, error);
        return {};
      }),
    );
    return decodeCollections(key, entries, this.#damagedRecords);
  }

  /** The state of replication, for the health report. */
  get replication(): HealthPart {
    return this.#fence;
  }

  /** The state of the Cluster, for the health report. `undefined` on one primary. */
  get cluster(): HealthPart | undefined {
    return this.#writer instanceof ClusterWriter ? this.#writer : undefined;
  }

  async unreadyReason(): Promise<string | undefined> {
    return this.#writer.unreadyReason ?? this.#primaries.unreadyReason ?? (await this.#probe.unreadyReason());
  }

  async close(): Promise<void> {
    if (this.reservations instanceof ShardedReservations) {
      await this.reservations.close();
    }
    this.#mutations.close();
    this.#products.close();
    this.#primaries.close();
  }

  #correctionKeys(productId: string, kind: OperationKind, id: string): string[] {
    const reference = this.#keys.reference(this.#keys.bucketOf(productId), id);
    return [...this.#keys.recordKeys(productId), this.#keys.operation(kind, productId, id), reference];
  }

  /** Runs a seller's event again, with the count in the plain key of its product, which has no ledger. */
  async #runNew(productId: string, event: Mutation): Promise<ReplyReader> {
    const plain = (await this.#plainKeys.count(productId)) ?? "none";
    return this.#mutations.run({ ...event, args: [...event.args.slice(0, -1), plain] });
  }

  /** Runs a mutation of an existing product, after adopting it from its plain key if it has no ledger yet. */
  async #mutateKnown(productId: string, mutation: Mutation): Promise<[string, ReplyReader]> {
    let reply = await this.#mutations.run(mutation);
    let status = reply.text();
    if (status === "absent" && (await this.#plainKeys.adopt(productId)) !== undefined) {
      reply = await this.#mutations.run(mutation);
      status = reply.text();
    }
    if (status === "absent" || status === "unknown") {
      throw productUnknown(productId);
    }
    return [status, reply];
  }
}

function putResult(event: ProductUpsert | ProductDelete, reply: ReplyReader): PutResult {
  const status = reply.text();
  switch (status) {
    case "applied":
    case "unchanged":
    case "stale":
      return {
        applied: status !== "stale",
        changed: status === "applied",
        ledger: decodeLedger(event.productId, reply.text()).ledger,
      };
    case "future":
      throw updateTooFarAhead(event, reply.integer());
    case "range": {
      const declared = reply.integer();
      throw declaredOutOfRange(event.productId, declared, reply.integer());
    }
    default:
      throw unexpectedStatus(status);
  }
}
