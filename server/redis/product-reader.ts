import { InventoryError } from "../inventory/errors.ts";
import type { ProductDetails } from "../inventory/ledger.ts";
import { isErrorReply } from "./connection/error-replies.ts";
import type { Primaries } from "./connection/primaries.ts";
import { type DamagedRecords, recordDamaged } from "./damaged-records.ts";
import { instrumented, type RedisInstruments } from "./instruments.ts";
import type { Keys } from "./keys.ts";
import { callLimits } from "./mutations/call-limits.ts";
import { Coalescer } from "./mutations/coalescer.ts";
import { unexpectedStatus } from "./mutations/mutations.ts";
import type { PlainKeys } from "./plain-keys.ts";
import { decodeDetails, decodeLedger, type LedgerState, list, ReplyReader } from "./reply.ts";
import { readScript } from "./scripts.ts";

/** Products of one read batch: about a millisecond of Redis's time. */
const PRODUCTS_PER_BATCH_MAX = 512;
const BATCHES_IN_FLIGHT_MAX = 4;

/** A product as Redis has it. */
export interface StoredProduct extends LedgerState {
  readonly details: ProductDetails | undefined;
}

interface ProductReaderOptions {
  readonly keys: Keys;
  readonly damagedRecords: DamagedRecords;
  readonly instruments: RedisInstruments;
}

/** Reads single products. Reads of one group of buckets that arrive together share one script call. */
export class ProductReader {
  readonly #keys: Keys;
  readonly #damagedRecords: DamagedRecords;
  readonly #plainKeys: PlainKeys;
  readonly #primaries: Primaries;
  readonly #instruments: RedisInstruments;
  readonly #script = readScript();
  /** By the bucket that stands for the group. */
  readonly #coalescers = new Map<number, Coalescer<string, ReplyReader>>();

  constructor(
    primaries: Primaries,
    plainKeys: PlainKeys,
    { keys, damagedRecords, instruments }: ProductReaderOptions,
  ) {
    this.#keys = keys;
    this.#damagedRecords = damagedRecords;
    this.#plainKeys = plainKeys;
    this.#primaries = primaries;
    this.#instruments = instruments;
    instruments.metrics?.addQueue("reads", () => this.#queued());
  }

  #queued(): number {
    let queued = 0;
    for (const coalescer of this.#coalescers.values()) {
      queued += coalescer.queued;
    }
    return queued;
  }

  #coalescerOf(productId: string): Coalescer<string, ReplyReader> {
    const group = this.#primaries.isOne ? 0 : this.#keys.bucketOf(productId);
    let coalescer = this.#coalescers.get(group);
    if (coalescer === undefined) {
      coalescer = this.#newCoalescer(group);
      this.#coalescers.set(group, coalescer);
    }
    return coalescer;
  }

  #newCoalescer(group: number): Coalescer<string, ReplyReader> {
    const keys = this.#keys;
    return new Coalescer({
      send: async (batch) => {
        const distinct = [...new Set(batch)];
        const replies = list(
          await this.#primaries.run(
            group,
            this.#script,
            distinct.flatMap((id) => keys.readKeys(id)),
            [],
          ),
        );
        const byId = new Map(distinct.map((id, index) => [id, replies[index]]));
        return batch.map((id) => new ReplyReader(byId.get(id)));
      },
      weightOf: () => 1,
      batchItemsMax: PRODUCTS_PER_BATCH_MAX,
      batchWeightMax: PRODUCTS_PER_BATCH_MAX,
      inFlightMax: BATCHES_IN_FLIGHT_MAX,
      shouldResend: (_, error) => !isErrorReply(error),
      ...instrumented("reads", () => "read_product", this.#instruments),
      ...callLimits(this.#primaries.availability(group)),
    });
  }

  /** Reads a product, and adopts it from its plain key if it has no ledger yet. `undefined` if there is neither. */
  async read(productId: string): Promise<StoredProduct | undefined> {
    const reply = await this.#coalescerOf(productId).submit(productId);
    const key = this.#keys.ledger(productId);
    const status = reply.text();
    switch (status) {
      case "ok": {
        const text = reply.text();
        const state = this.#damagedRecords.decode("ledger", key, () => decodeLedger(productId, text));
        if (state === undefined) {
          throw recordDamaged("ledger", key, text);
        }
        return {
          ...state,
          details: this.#decodeDetails(productId, reply.optionalText(), reply.optionalText()),
        };
      }
      case "absent": {
        const adopted = await this.#plainKeys.adopt(productId);
        return adopted && { ...decodeLedger(productId, adopted.text()), details: undefined };
      }
      case "damaged": {
        const reason = reply.text();
        this.#damagedRecords.found("ledger", key, reason);
        throw recordDamaged("ledger", key, reason);
      }
      default:
        throw unexpectedStatus(status);
    }
  }

  /** Reads a product of many: a damaged one is reported and left out like an unknown one. */
  async readUnlessDamaged(productId: string): Promise<StoredProduct | undefined> {
    try {
      return await this.read(productId);
    } catch (error) {
      if (error instanceof InventoryError && error.code === "RECORD_DAMAGED") {
        return undefined;
      }
      throw error;
    }
  }

  /** A product with damaged details is shown without them: its count is right. */
  #decodeDetails(
    productId: string,
    text: string | undefined,
    readError: string | undefined,
  ): ProductDetails | undefined {
    const key = this.#keys.details(productId);
    if (readError !== undefined) {
      this.#damagedRecords.found("details", key, readError);
    }
    return text === undefined
      ? undefined
      : this.#damagedRecords.decode("details", key, () => decodeDetails(text));
  }

  close(): void {
    for (const coalescer of this.#coalescers.values()) {
      coalescer.close();
    }
  }
}
