import { UPDATE_AHEAD_MS_MAX } from "../../inventory/ledger.ts";
import { type DamagedRecords, recordKind } from "../damaged-records.ts";
import type { RedisInstruments } from "../instruments.ts";
import type { Keys } from "../keys.ts";
import { list, ReplyReader } from "../reply.ts";
import type { ScriptCall } from "./acknowledgement.ts";
import type { Fence } from "./fence.ts";
import type { Mutation } from "./mutation.ts";

/** Changes kept in a bucket's stream. Older ones are trimmed, published or not. */
const CHANGES_KEPT_PER_BUCKET = 100_000;

/** Called with each product that a mutation has changed and its new version, before the mutation resolves. */
export type OnAcknowledged = (productId: string, version: number) => void;

export interface BatchOptions {
  readonly operationRetentionMs: number;
  readonly changesKeptPerProduct: number;
  readonly onAcknowledged: OnAcknowledged;
  readonly damagedRecords: DamagedRecords;
  readonly instruments: RedisInstruments;
}

/** Encodes batches for run-batch.lua and decodes its replies. */
export class BatchCodec {
  readonly #fence: Fence;
  readonly #keys: Keys;
  readonly #options: BatchOptions;

  constructor(fence: Fence, keys: Keys, options: BatchOptions) {
    this.#fence = fence;
    this.#keys = keys;
    this.#options = options;
  }

  encode(batch: readonly Mutation[], waitsForReplicas: boolean): ScriptCall {
    const keys = batch.flatMap((mutation) => mutation.keys);
    const operations = JSON.stringify(
      batch.map((mutation) => [mutation.name, mutation.keys.length, mutation.args, mutation.actor ?? ""]),
    );
    const expected = this.#fence.expectation(keys);
    return {
      keys: [...keys, ...expected.keys],
      args: [
        this.#options.operationRetentionMs,
        CHANGES_KEPT_PER_BUCKET,
        this.#options.changesKeptPerProduct,
        UPDATE_AHEAD_MS_MAX,
        operations,
        waitsForReplicas ? "1" : "0",
        ...expected.args,
      ],
    };
  }

  /** The reply to each operation. Reports what the batch changed, and the damaged records that it found. */
  decode(reply: unknown): ReplyReader[] {
    const replies = list(reply);
    this.#reportDamaged(list(replies.at(-3)));
    this.#reportAcknowledged(list(replies.at(-2)));
    this.#noteNewest(list(replies.at(-1)));
    return replies.slice(0, -3).map((each) => new ReplyReader(each));
  }

  /** Kind, key and reason of each damaged record, in turn. */
  #reportDamaged(damage: readonly unknown[]): void {
    for (let i = 0; i + 2 < damage.length; i += 3) {
      const [kind, key, reason] = damage.slice(i, i + 3).map(String);
      this.#options.damagedRecords.found(recordKind(kind ?? ""), key ?? "", reason ?? "");
    }
  }

  #reportAcknowledged(changed: readonly unknown[]): void {
    for (let i = 0; i + 1 < changed.length; i += 2) {
      this.#options.onAcknowledged(String(changed[i]), Number(changed[i + 1]));
    }
  }

  /** Passes the newest change of each stream to the fence: key, entry ID, product ID, version. */
  #noteNewest(entries: readonly unknown[]): void {
    for (let i = 0; i + 3 < entries.length; i += 4) {
      const bucket = this.#keys.bucketIn(String(entries[i]));
      if (bucket !== undefined) {
        const [, entryId, productId, version] = entries.slice(i, i + 4);
        this.#fence.acknowledged(bucket, {
          entryId: String(entryId),
          productId: String(productId),
          version: Number(version),
        });
      }
    }
  }
}
