import {
  type ChangeKey,
  CORRECTIONS_NAMED_MAX,
  findChanges,
  type HistoryPart,
  type ReferenceChanges,
  type ReferencePage,
  type ReferenceQuery,
  type ReferenceTrace,
} from "../inventory/change-history.ts";
import type { StockChange } from "../inventory/ledger.ts";
import type { ChangesPage } from "../inventory/store.ts";
import { type Primaries, sendByCommand } from "./connection/primaries.ts";
import type { DamagedRecords } from "./damaged-records.ts";
import type { Keys } from "./keys.ts";
import { decodeReference } from "./reference-record.ts";
import { decodeChange } from "./reply.ts";
import { decodeTrace, isRefusal } from "./reservation-record.ts";

/** Reads the histories of products, and the records that say which products a reference has changed. */
export class RedisHistory {
  readonly #keys: Keys;
  readonly #primaries: Primaries;
  readonly #damagedRecords: DamagedRecords;

  constructor(keys: Keys, primaries: Primaries, damagedRecords: DamagedRecords) {
    this.#keys = keys;
    this.#primaries = primaries;
    this.#damagedRecords = damagedRecords;
  }

  /** The latest changes of a product. Reads on past damaged ones, so that only the last page has fewer than `limit`. */
  async list(productId: string, { limit, beforeVersion }: ChangesPage): Promise<StockChange[]> {
    const listed: StockChange[] = [];
    let before = beforeVersion;
    let isLast = false;
    while (listed.length < limit && !isLast) {
      const part = await this.#read(productId, before, limit - listed.length);
      listed.push(...part.changes);
      before = part.oldestVersion;
      isLast = part.isLast;
    }
    return listed;
  }

  async find(query: ReferenceQuery, page: ReferencePage): Promise<ReferenceChanges> {
    const trace = await this.#trace(query.referenceId);
    return findChanges(query, page, trace, (productId, before, limit) =>
      this.#read(productId, before, limit),
    );
  }

  async #read(productId: string, before: number | undefined, limit: number): Promise<HistoryPart> {
    if (before !== undefined && before <= 1) {
      return { changes: [], oldestVersion: undefined, isLast: true };
    }
    const key = this.#keys.history(productId);
    const newest = before === undefined ? "+" : `(${before}-0`;
    const entries = await this.#primaries.send(this.#keys.bucketOf(productId), (client) =>
      client.xrevrange(key, newest, "-", "COUNT", limit).catch((error) => {
        this.#damagedRecords.foundForeignType("stream", key, error);
        return [];
      }),
    );
    const changes = entries.flatMap(
      (entry) => this.#damagedRecords.decode("stream", `${key} ${entry[0]}`, () => decodeChange(entry)) ?? [],
    );
    const oldest = entries.at(-1)?.[0];
    return {
      changes,
      oldestVersion: oldest === undefined ? undefined : Number.parseInt(oldest, 10),
      isLast: entries.length < limit,
    };
  }

  /** Reads the record of a reservation in its bucket, and the records of corrections in the buckets of all products. */
  async #trace(referenceId: string): Promise<ReferenceTrace> {
    const reservationKey = this.#keys.reservation(referenceId);
    const referenceKeys = Array.from({ length: this.#keys.buckets }, (_, bucket) =>
      this.#keys.reference(bucket, referenceId),
    );
    const records = [
      { kind: "reservation", key: reservationKey, bucket: this.#keys.bucketOf(referenceId) } as const,
      ...referenceKeys.map((key, bucket) => ({ kind: "reference", key, bucket }) as const),
    ];
    const [reservation, ...references] = await sendByCommand(
      this.#primaries,
      records,
      ({ bucket }) => bucket,
      (client, group) =>
        Promise.all(group.map(({ kind, key }) => this.#readText(kind, key, client.get(key)))),
    );
    const corrections = references.flatMap((text, index) => {
      const changes =
        text === undefined ? undefined : this.#decodeReference(referenceKeys[index] ?? "", text);
      return changes === undefined ? [] : [changes];
    });
    return {
      reservation:
        reservation === undefined || isRefusal(reservation)
          ? undefined
          : this.#damagedRecords.decode("reservation", reservationKey, () => decodeTrace(reservation)),
      corrections: corrections.length === 0 ? undefined : corrections.flat(),
      lacksCorrections: corrections.some((changes) => changes.length >= CORRECTIONS_NAMED_MAX),
    };
  }

  #readText(
    kind: "reservation" | "reference",
    key: string,
    reading: Promise<string | null>,
  ): Promise<string | undefined> {
    return reading.then(
      (text) => text ?? undefined,
      (error) => {
        this.#damagedRecords.foundForeignType(kind, key, error);
        return undefined;
      },
    );
  }

  #decodeReference(key: string, text: string): readonly ChangeKey[] | undefined {
    return this.#damagedRecords.decode("reference", key, () => decodeReference(text));
  }
}
