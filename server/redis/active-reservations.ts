import type { Redis } from "ioredis";
import { compareIds, positionOf, type Reservation } from "../inventory/reservation.ts";
import type { ProductReservations, ReservationsPage } from "../inventory/store.ts";
import { type Primaries, sendByCommand } from "./connection/primaries.ts";
import type { DamagedRecords } from "./damaged-records.ts";
import type { Keys } from "./keys.ts";
import { decodeReservation } from "./reservation-record.ts";

/** Reservations that one list of a product's reservations examines, and how many of them at once. */
const EXAMINED_PER_CALL_MAX = 10_000;
const EXAMINED_AT_ONCE = 1_000;

interface Deadline {
  readonly id: string;
  /** ms since 1970. */
  readonly deadline: number;
}

/** Lists the active reservations in Redis, from the deadlines of all buckets. */
export class ActiveReservations {
  readonly #keys: Keys;
  readonly #primaries: Primaries;
  readonly #damagedRecords: DamagedRecords;

  constructor(keys: Keys, primaries: Primaries, damagedRecords: DamagedRecords) {
    this.#keys = keys;
    this.#primaries = primaries;
    this.#damagedRecords = damagedRecords;
  }

  async list(page: ReservationsPage): Promise<Reservation[]> {
    const listed: Reservation[] = [];
    let after = page.after;
    do {
      const part = await this.#examine({ ...page, after, limit: page.limit - listed.length });
      listed.push(...part.reservations);
      after = part.next;
    } while (listed.length < page.limit && after !== undefined);
    return listed;
  }

  async listOfProduct(productId: string, page: ReservationsPage): Promise<ProductReservations> {
    const reservations: Reservation[] = [];
    let after = page.after;
    for (let examined = 0; examined < EXAMINED_PER_CALL_MAX; examined += EXAMINED_AT_ONCE) {
      const part = await this.#examine({ ...page, after, limit: EXAMINED_AT_ONCE });
      for (const reservation of part.reservations) {
        if (reservation.lines.some((line) => line.productId === productId)) {
          reservations.push(reservation);
          if (reservations.length === page.limit) {
            return { reservations, next: positionOf(reservation) };
          }
        }
      }
      after = part.next;
      if (after === undefined) {
        break;
      }
    }
    return { reservations, next: after };
  }

  async count(): Promise<number> {
    const counts = await this.#ofEachBucket((client, key) => this.#skipDamaged(key, 0, client.zcard(key)));
    return counts.reduce((sum, count) => sum + count, 0);
  }

  /** Reads the records of the next `limit` deadlines. `next` is absent if there are no more. */
  async #examine({ limit, after, expireBeforeMs }: ReservationsPage): Promise<ProductReservations> {
    const due = await this.#dueAfter(after, expireBeforeMs, limit);
    const last = due.at(-1);
    if (last === undefined) {
      return { reservations: [], next: undefined };
    }
    const texts = await sendByCommand(
      this.#primaries,
      due,
      ({ id }) => this.#keys.bucketOf(id),
      (client, group) => client.mget(group.map(({ id }) => this.#keys.reservation(id))),
    );
    const reservations = due.flatMap(({ id, deadline }, index) => {
      const text = texts[index];
      const reservation =
        typeof text === "string"
          ? this.#damagedRecords.decode("reservation", this.#keys.reservation(id), () =>
              decodeReservation(id, text),
            )
          : undefined;
      // Skips reservations that ended since their deadline was read, and those that were extended: they are
      // listed at their new deadline. Listed here, a page that ends with one would continue from that deadline.
      // A deadline after that of the record is the next attempt to expire a reservation that needs a damaged record.
      return reservation?.state === "active" && (reservation.expireTimeMs ?? 0) <= deadline
        ? [{ ...reservation, expireTimeMs: deadline }]
        : [];
    });
    const next = { expireTimeMs: last.deadline, reservationId: last.id };
    return { reservations, next: due.length < limit ? undefined : next };
  }

  /** The next deadlines of all buckets, in order of deadline and ID. */
  async #dueAfter(
    after: ReservationsPage["after"],
    expireBeforeMs: number | undefined,
    limit: number,
  ): Promise<Deadline[]> {
    const end = expireBeforeMs === undefined ? "+inf" : `(${expireBeforeMs}`;
    const isWithin = after !== undefined && after.expireTimeMs < (expireBeforeMs ?? Number.POSITIVE_INFINITY);
    const found = await this.#ofEachBucket(async (client, key) => {
      const from = after === undefined ? "-inf" : `(${after.expireTimeMs}`;
      const later = client.zrangebyscore(key, from, end, "WITHSCORES", "LIMIT", 0, limit);
      // Deadlines in the same millisecond are ordered by ID.
      const ranges = isWithin
        ? [later, client.zrangebyscore(key, after.expireTimeMs, after.expireTimeMs, "WITHSCORES")]
        : [later];
      return Promise.all(ranges.map((range) => this.#skipDamaged<string[]>(key, [], range)));
    });
    return found
      .flat()
      .flatMap(deadlinesOf)
      .filter(
        ({ id, deadline }) =>
          after === undefined || deadline > after.expireTimeMs || compareIds(id, after.reservationId) > 0,
      )
      .sort((a, b) => a.deadline - b.deadline || compareIds(a.id, b.id))
      .slice(0, limit);
  }

  /** Reads from the deadlines of every bucket. */
  #ofEachBucket<T>(read: (client: Redis, key: string) => Promise<T>): Promise<T[]> {
    const buckets = Array.from({ length: this.#keys.buckets }, (_, bucket) => bucket);
    return sendByCommand(
      this.#primaries,
      buckets,
      (bucket) => bucket,
      (client, group) => Promise.all(group.map((bucket) => read(client, this.#keys.deadlines(bucket)))),
    );
  }

  /** Resolves with `empty` if the key is not a sorted set: the other buckets are read all the same. */
  #skipDamaged<T>(key: string, empty: T, reading: Promise<T>): Promise<T> {
    return reading.catch((error) => {
      this.#damagedRecords.foundForeignType("deadlines", key, error);
      return empty;
    });
  }
}

/** Pairs the members and scores of a WITHSCORES reply. */
function deadlinesOf(flat: readonly string[]): Deadline[] {
  const pairs: Deadline[] = [];
  for (let i = 0; i + 1 < flat.length; i += 2) {
    pairs.push({ id: flat[i] ?? "", deadline: Number(flat[i + 1]) });
  }
  return pairs;
}
