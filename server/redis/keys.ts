import { crc32 } from "node:zlib";

/**
 * Default of INVENTORY_BUCKETS on one primary. A bucket is the unit of the change stream and of publishing there, not of
 * storage: 8 let several servers share the publishing, and one blocking read over all streams stays cheap.
 */
export const BUCKETS_DEFAULT = 8;
/**
 * Default of INVENTORY_BUCKETS in a Cluster. A bucket is one slot there, the unit that moves to another primary: 64 spread
 * evenly over up to about 16 primaries. Each costs every server one blocking connection.
 */
export const CLUSTER_BUCKETS_DEFAULT = 64;
export const BUCKETS_MAX = 256;

/** Version of the key layout below. Incremented when a release changes it so that older servers must not write. */
export const LAYOUT_VERSION = 3;
/** Stands in the place of the version until a copy of the data is complete. */
export const UNFINISHED_COPY = "unfinished copy";

/** Kinds of records, as the scripts, the log and the metrics name those that are damaged. */
export const RECORD_KINDS = [
  "ledger",
  "details",
  "stream",
  "products",
  "collection",
  "operation",
  "reference",
  "reservation",
  "deadline",
  "deadlines",
  "hold",
  "undecided",
  "owed",
  "outbox",
] as const;
export type RecordKind = (typeof RECORD_KINDS)[number];

/** Operations whose ID is kept to recognize a repetition. */
export type OperationKind = "count" | "adjust" | "return";

/**
 * Names every key in Redis. All but the adopted plain keys carry their bucket as a hash tag, `{b03}` or `{b128}`,
 * so that the keys of one product share a slot.
 *
 * | key | type | holds |
 * |---|---|---|
 * | `{b00}:layout` | hash | `version` and `buckets`, checked at every connection; `data`, a random ID of the data; `marked`, 1 once every bucket has its marker |
 * | `{bNN}:bucket` | hash | the fence of the bucket (scripts/fence.lua) |
 * | `{bNN}:p:<product>` | hash | the ledger and the fences, one letter each (scripts/ledger.lua) |
 * | `{bNN}:d:<product>` | string | the seller's details, a JSON array |
 * | `{bNN}:h:<product>` | stream | the product's latest changes, ID = version |
 * | `{bNN}:products` | set | IDs of all products of the bucket |
 * | `{bNN}:changes` | stream | changes of all products of the bucket |
 * | `{bNN}:outbox` | hash | lease and cursor of the bucket's publisher (scripts/outbox.lua) |
 * | `{b00}:publishers` | sorted set | publishers by the time at which their announcement expires, ms |
 * | `{bNN}:op:count:<product>:<ID>`, `{bNN}:op:adjust:<product>:<ID>`, `{bNN}:op:return:<reservation>:<ID>` | string | fingerprint of a completed operation; expires after the retention |
 * | `{bNN}:ref:<ID>` | string | by the ID of a count, adjustment or return: product and version of its changes, JSON; expires after the retention |
 * | `{bNN}:r:<reservation>` | string | a reservation, JSON (scripts/reservation-record.lua) |
 * | `{bNN}:deadlines` | sorted set | active reservations of the bucket by deadline, ms |
 * | `{bNN}:owed` | sorted set | in a Cluster: reservations with effects that are not settled, by time, ms (scripts/decisions.lua) |
 * | `{bNN}:x:<reservation>` | string | in a Cluster: what a reservation holds and has sold in this bucket, JSON (scripts/hold-record.lua) |
 * | `{bNN}:undecided` | sorted set | in a Cluster: reservations whose hold may not be decided, by time, ms |
 * | `{b00}:collections` | hash | by collection: time of its newest event in µs, a space, JSON with its delivery (empty if deleted) |
 * | `<product>` | string | a count written by the Go service; read, never written |
 */
export class Keys {
  readonly buckets: number;
  readonly #tags: readonly string[];

  constructor(buckets: number) {
    this.buckets = buckets;
    this.#tags = Array.from({ length: buckets }, (_, n) => `{b${String(n).padStart(2, "0")}}`);
  }

  /** The bucket of a product or of an operation's ID: CRC-32 of its UTF-8 bytes, modulo the buckets. */
  bucketOf(id: string): number {
    return crc32(id) % this.buckets;
  }

  layout(): string {
    return "{b00}:layout";
  }

  /** The fence of a bucket (scripts/fence.lua). */
  marker(bucket: number): string {
    return `${this.#tag(bucket)}:bucket`;
  }

  /** The bucket that a key belongs to, by its tag; `undefined` for plain keys. */
  bucketIn(key: string): number | undefined {
    if (!key.startsWith("{b")) {
      return undefined;
    }
    // Digit by digit: it runs for every key of every batch.
    let bucket = 0;
    let at = 2;
    for (let digit = digitAt(key, at); digit !== undefined; digit = digitAt(key, at)) {
      bucket = 10 * bucket + digit;
      at += 1;
    }
    return at > 2 && key.startsWith("}:", at) ? bucket : undefined;
  }

  collections(): string {
    return "{b00}:collections";
  }

  ledger(productId: string, bucket = this.bucketOf(productId)): string {
    return `${this.#tag(bucket)}:p:${productId}`;
  }

  details(productId: string, bucket = this.bucketOf(productId)): string {
    return `${this.#tag(bucket)}:d:${productId}`;
  }

  history(productId: string, bucket = this.bucketOf(productId)): string {
    return `${this.#tag(bucket)}:h:${productId}`;
  }

  products(bucket: number): string {
    return `${this.#tag(bucket)}:products`;
  }

  changes(bucket: number): string {
    return `${this.#tag(bucket)}:changes`;
  }

  outbox(bucket: number): string {
    return `${this.#tag(bucket)}:outbox`;
  }

  publishers(): string {
    return "{b00}:publishers";
  }

  /**
   * The record of a completed operation, in the bucket of its owner: the product of a count or adjustment, the reservation
   * of a return. The ID is unique per kind and owner. IDs may contain colons, so those of the owner are escaped.
   */
  operation(kind: OperationKind, ownerId: string, id: string): string {
    const owner = ownerId.replaceAll("%", "%25").replaceAll(":", "%3A");
    return `${this.#tagOf(ownerId)}:op:${kind}:${owner}:${id}`;
  }

  /**
   * The changes of a count or adjustment, in the bucket of its product; of a return, in that of its reservation: each is
   * written by a script that works on this bucket.
   */
  reference(bucket: number, id: string): string {
    return `${this.#tag(bucket)}:ref:${id}`;
  }

  reservation(reservationId: string): string {
    return `${this.#tagOf(reservationId)}:r:${reservationId}`;
  }

  deadlines(bucket: number): string {
    return `${this.#tag(bucket)}:deadlines`;
  }

  owed(bucket: number): string {
    return `${this.#tag(bucket)}:owed`;
  }

  hold(bucket: number, reservationId: string): string {
    return `${this.#tag(bucket)}:x:${reservationId}`;
  }

  undecided(bucket: number): string {
    return `${this.#tag(bucket)}:undecided`;
  }

  /** KEYS of read-products.lua for one product. */
  readKeys(productId: string): string[] {
    const bucket = this.bucketOf(productId);
    return [this.ledger(productId, bucket), this.details(productId, bucket)];
  }

  /** Ledger, history and change stream: the keys that `record` in scripts/ledger.lua writes, in the order of KEYS. */
  recordKeys(productId: string, bucket = this.bucketOf(productId)): string[] {
    return [this.ledger(productId, bucket), this.history(productId, bucket), this.changes(bucket)];
  }

  /** The keys of an operation that may create a product. */
  creationKeys(productId: string): string[] {
    const bucket = this.bucketOf(productId);
    return [...this.recordKeys(productId, bucket), this.products(bucket)];
  }

  /** The keys of `put_product` in scripts/product-event.lua. */
  upsertKeys(productId: string): string[] {
    const bucket = this.bucketOf(productId);
    return [...this.recordKeys(productId, bucket), this.details(productId, bucket), this.products(bucket)];
  }

  /** The plain key in which the Go service keeps a product's count. It has a slot of its own, so no script has it in KEYS. */
  plain(productId: string): string {
    return productId;
  }

  #tagOf(id: string): string {
    return this.#tag(this.bucketOf(id));
  }

  #tag(bucket: number): string {
    const tag = this.#tags[bucket];
    if (tag === undefined) {
      throw new RangeError(`There is no bucket ${bucket}: there are ${this.buckets}`);
    }
    return tag;
  }
}

function digitAt(text: string, index: number): number | undefined {
  const digit = text.charCodeAt(index) - 48;
  return digit >= 0 && digit <= 9 ? digit : undefined;
}
