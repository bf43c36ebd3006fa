import { crc32 } from "node:zlib";

/**
 * How many buckets products are spread over unless INVENTORY_BUCKETS says otherwise. A bucket is
 * the unit of the change stream and of publishing, not of storage: 8 lets several servers share
 * the publishing, and keeps one blocking read over all streams cheap.
 */
export const BUCKETS_DEFAULT = 8;
export const BUCKETS_MAX = 64;

/** Layout of the keys below; grows when a release changes them so that older servers must not write. */
export const LAYOUT_VERSION = 2;

/**
 * Names every key in Redis. All but the adopted plain keys carry their bucket as a hash tag, `{b03}`,
 * so that the keys of one product share a slot.
 *
 * | key | type | holds |
 * |---|---|---|
 * | `{b00}:layout` | hash | `version` and `buckets`, checked at every connection; `data`, a random ID of the data |
 * | `{bNN}:p:<product>` | hash | the ledger and the fences, one letter each (scripts/ledger.lua) |
 * | `{bNN}:d:<product>` | string | the seller's details, a JSON array |
 * | `{bNN}:h:<product>` | stream | the product's latest changes, ID = version |
 * | `{bNN}:products` | set | IDs of all products of the bucket |
 * | `{bNN}:changes` | stream | changes of all products of the bucket |
 * | `{bNN}:outbox` | hash | who publishes the bucket's changes, and how far they are published (scripts/outbox.lua) |
 * | `{b00}:publishers` | sorted set | publishers by the time until which they are there, ms |
 * | `{bNN}:op:<kind>:<ID>` | string | fingerprint of an operation done, until its retention ends |
 * | `{bNN}:r:<reservation>` | string | a reservation, JSON (scripts/reservation.lua) |
 * | `{bNN}:deadlines` | sorted set | active reservations of the bucket by deadline, ms |
 * | `{b00}:collections` | hash | by collection: µs of its newest event, a space, JSON (empty where deleted) |
 * | `<product>` | string | a count that the old Go service kept; read, never written |
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

  collections(): string {
    return "{b00}:collections";
  }

  ledger(productId: string, bucket = this.bucketOf(productId)): string {
    return `${this.#tag(bucket)}:p:${productId}`;
  }

  details(productId: string, bucket = this.bucketOf(productId)): string {
    return `${this.#tag(bucket)}:d:${productId}`;
  }

  history(productId: string): string {
    return `${this.#tagOf(productId)}:h:${productId}`;
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

  operation(kind: string, id: string): string {
    return `${this.#tagOf(id)}:op:${kind}:${id}`;
  }

  reservation(reservationId: string): string {
    return `${this.#tagOf(reservationId)}:r:${reservationId}`;
  }

  deadlines(bucket: number): string {
    return `${this.#tag(bucket)}:deadlines`;
  }

  /** What read-products.lua takes for a product. */
  read(productId: string): string[] {
    return [this.ledger(productId), this.details(productId), this.plain(productId)];
  }

  /** Ledger, history and change stream: what `record` in scripts/ledger.lua writes, in the order that scripts take. */
  recorded(productId: string): string[] {
    return [this.ledger(productId), this.history(productId), this.changes(this.bucketOf(productId))];
  }

  /** The keys of an operation that may bring a product into being. */
  creating(productId: string): string[] {
    return [...this.recorded(productId), this.products(this.bucketOf(productId)), this.plain(productId)];
  }

  /** The plain key in which the old Go service kept a product's count. */
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
