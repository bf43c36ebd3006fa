import type { ShortLine } from "../inventory/errors.ts";
import { fingerprint } from "../inventory/operation.ts";
import {
  commitTooLarge,
  idReused,
  productUnknown,
  releasedBeforeReserved,
  reservationEnded,
  reservationUnknown,
  returnOfOther,
  returnTooLarge,
  stockShort,
} from "../inventory/refusals.ts";
import { type Line, linesFingerprint, type Reservation } from "../inventory/reservation.ts";
import type {
  CommitRequest,
  ReservationStore,
  ReservationsPage,
  ReserveRequest,
  ReturnRequest,
} from "../inventory/store.ts";
import type { RedisConnection } from "./client.ts";
import type { Keys } from "./keys.ts";
import { type Mutations, unknownWord } from "./mutations.ts";
import type { ReplyReader } from "./reply.ts";
import { decodeReservation, readState } from "./reservation-record.ts";

/** What a commit or release counts for in a batch: only the record knows how many products it touches. */
const PRODUCTS_OF_A_RESERVATION = 3;

interface Deadline {
  readonly id: string;
  /** ms since 1970. */
  readonly deadline: number;
}

/** The reservations in Redis. Every method is one operation of scripts/reservation.lua. */
export class RedisReservations implements ReservationStore {
  readonly #keys: Keys;
  readonly #mutations: Mutations;
  readonly #reads: RedisConnection;
  #firstToSweep = 0;

  constructor(keys: Keys, mutations: Mutations, reads: RedisConnection) {
    this.#keys = keys;
    this.#mutations = mutations;
    this.#reads = reads;
  }

  async reserve(request: ReserveRequest): Promise<Reservation> {
    const { reservationId } = request;
    let reply = await this.#reserveOnce(request);
    let word = reply.text();
    if (word === "absent") {
      const absent = textsOf(reply);
      const adopted = await Promise.all(absent.map((id) => this.#mutations.adopt(id, this.#keys)));
      const missing = absent.find((_, index) => adopted[index] === undefined);
      if (missing !== undefined) {
        throw productUnknown(missing);
      }
      reply = await this.#reserveOnce(request);
      word = reply.text();
    }
    switch (word) {
      case "ok":
        return decodeReservation(reservationId, reply.text());
      case "short":
        throw stockShort(shortageOf(reply));
      case "reused":
        throw idReused("reservation_id", reservationId);
      case "released_before":
        throw releasedBeforeReserved(reservationId);
      case "unknown":
        throw productUnknown(reply.text());
      default:
        throw unknownWord(word);
    }
  }

  async commit({ reservationId, lines, strict }: CommitRequest): Promise<Reservation> {
    const reply = await this.#onReservation(reservationId, "commit_reservation", [
      strict ? "strict" : "",
      ...(lines ?? []).flatMap(({ productId, quantity }) => [productId, quantity]),
    ]);
    const word = reply.text();
    switch (word) {
      case "ok":
        return decodeReservation(reservationId, reply.text());
      case "missing":
        throw reservationUnknown(reservationId);
      case "ended":
        throw reservationEnded("commit", reservationId, readState(reply.text()));
      case "reused":
        throw idReused("reservation_id", reservationId);
      case "short":
        throw stockShort(shortageOf(reply));
      case "too_large": {
        const index = reply.integer();
        const line = lineAt(lines, index);
        throw commitTooLarge(index, line.productId, line.quantity, reply.integer());
      }
      default:
        throw unknownWord(word);
    }
  }

  async release(reservationId: string): Promise<Reservation> {
    const reply = await this.#onReservation(reservationId, "release_reservation", []);
    const word = reply.text();
    switch (word) {
      case "ok":
        return decodeReservation(reservationId, reply.text());
      case "ended":
        throw reservationEnded("release", reservationId, readState(reply.text()));
      default:
        throw unknownWord(word);
    }
  }

  async extend(reservationId: string, ttlMs: number): Promise<Reservation> {
    const reply = await this.#onReservation(reservationId, "extend_reservation", [ttlMs]);
    const word = reply.text();
    switch (word) {
      case "ok":
        return decodeReservation(reservationId, reply.text());
      case "missing":
        throw reservationUnknown(reservationId);
      case "ended":
        throw reservationEnded("extend", reservationId, readState(reply.text()));
      default:
        throw unknownWord(word);
    }
  }

  async return({ reservationId, returnId, lines }: ReturnRequest): Promise<Reservation> {
    const print = fingerprint([reservationId, linesFingerprint(lines)]);
    const reply = await this.#mutations.run({
      name: "return_units",
      keys: [this.#keys.reservation(reservationId), this.#keys.operation("return", returnId)],
      args: [returnId, print, ...lines.flatMap(({ productId, quantity }) => [productId, quantity])],
      products: lines.length,
      isRepeatable: true,
    });
    const word = reply.text();
    switch (word) {
      case "ok":
        return decodeReservation(reservationId, reply.text());
      case "missing":
        throw reservationUnknown(reservationId);
      case "reused":
        throw idReused("return_id", returnId);
      case "ended":
        throw reservationEnded("return units of", reservationId, readState(reply.text()));
      case "other": {
        const index = reply.integer();
        throw returnOfOther(index, lineAt(lines, index).productId);
      }
      case "too_large": {
        const { productId, quantity } = lineAt(lines, reply.integer());
        throw returnTooLarge(productId, quantity, reply.integer());
      }
      default:
        throw unknownWord(word);
    }
  }

  async get(reservationId: string): Promise<Reservation> {
    const text = await this.#reads.ask((client) => client.get(this.#keys.reservation(reservationId)));
    if (text === null) {
      throw reservationUnknown(reservationId);
    }
    return decodeReservation(reservationId, text);
  }

  async list(page: ReservationsPage): Promise<Reservation[]> {
    const listed: Reservation[] = [];
    let after = page.after;
    while (listed.length < page.limit) {
      const wanted = page.limit - listed.length;
      const due = await this.#dueAfter(after, page.expireBeforeMs, wanted);
      if (due.length === 0) {
        break;
      }
      const texts = await this.#reads.ask((client) =>
        client.mget(due.map(({ id }) => this.#keys.reservation(id))),
      );
      for (const [index, { id, deadline }] of due.entries()) {
        const text = texts[index];
        const reservation = typeof text === "string" ? decodeReservation(id, text) : undefined;
        // One that ended since its deadline was read is left out, and another takes its place. One that was
        // extended stands further on: told here, a page that ends with it would go on from there.
        if (reservation?.state === "active" && reservation.expireTimeMs === deadline) {
          listed.push(reservation);
        }
      }
      const last = due.at(-1);
      after = last && { expireTimeMs: last.deadline, reservationId: last.id };
      if (due.length < wanted) {
        break;
      }
    }
    return listed;
  }

  async countActive(): Promise<number> {
    const counts = await this.#reads.ask((client) =>
      Promise.all(
        Array.from({ length: this.#keys.buckets }, (_, bucket) => client.zcard(this.#keys.deadlines(bucket))),
      ),
    );
    return counts.reduce((sum, count) => sum + count, 0);
  }

  async expireDue(limit: number): Promise<number> {
    const reply = await this.#mutations.run({
      name: "expire_due",
      keys: this.#deadlinesInTurn(),
      args: [limit],
      products: limit,
      isRepeatable: true,
    });
    reply.text();
    return reply.integer();
  }

  /** The deadlines of all buckets, each time beginning with another one, so that a busy bucket keeps none waiting. */
  #deadlinesInTurn(): string[] {
    const { buckets } = this.#keys;
    this.#firstToSweep = (this.#firstToSweep + 1) % buckets;
    return Array.from({ length: buckets }, (_, n) =>
      this.#keys.deadlines((this.#firstToSweep + n) % buckets),
    );
  }

  /** The next deadlines of all buckets, in order. */
  async #dueAfter(
    after: ReservationsPage["after"],
    expireBeforeMs: number | undefined,
    limit: number,
  ): Promise<Deadline[]> {
    const end = expireBeforeMs === undefined ? "+inf" : `(${expireBeforeMs}`;
    const isWithin = after !== undefined && after.expireTimeMs < (expireBeforeMs ?? Number.POSITIVE_INFINITY);
    const found = await this.#reads.ask((client) =>
      Promise.all(
        Array.from({ length: this.#keys.buckets }, (_, bucket) => this.#keys.deadlines(bucket)).flatMap(
          (key) => {
            const from = after === undefined ? "-inf" : `(${after.expireTimeMs}`;
            const later = client.zrangebyscore(key, from, end, "WITHSCORES", "LIMIT", 0, limit);
            // Of those that are due in the same millisecond as the last one, only the ID tells which come after it.
            return isWithin
              ? [later, client.zrangebyscore(key, after.expireTimeMs, after.expireTimeMs, "WITHSCORES")]
              : [later];
          },
        ),
      ),
    );
    return found
      .flatMap(deadlinesOf)
      .filter(
        ({ id, deadline }) =>
          after === undefined || deadline > after.expireTimeMs || compareIds(id, after.reservationId) > 0,
      )
      .sort((a, b) => a.deadline - b.deadline || compareIds(a.id, b.id))
      .slice(0, limit);
  }

  #reserveOnce({ reservationId, lines, ttlMs }: ReserveRequest): Promise<ReplyReader> {
    return this.#mutations.run({
      name: "reserve",
      keys: [
        ...this.#reservationKeys(reservationId),
        ...lines.flatMap(({ productId }) => this.#keys.recorded(productId)),
      ],
      args: [
        reservationId,
        linesFingerprint(lines),
        ttlMs,
        ...lines.flatMap(({ productId, quantity }) => [productId, this.#keys.bucketOf(productId), quantity]),
      ],
      products: lines.length,
      isRepeatable: true,
    });
  }

  #onReservation(
    reservationId: string,
    name: string,
    args: readonly (string | number)[],
  ): Promise<ReplyReader> {
    return this.#mutations.run({
      name,
      keys: this.#reservationKeys(reservationId),
      args: [reservationId, ...args],
      products: PRODUCTS_OF_A_RESERVATION,
      isRepeatable: true,
    });
  }

  #reservationKeys(reservationId: string): string[] {
    return [this.#keys.reservation(reservationId), this.#keys.deadlines(this.#keys.bucketOf(reservationId))];
  }
}

function textsOf(reply: ReplyReader): string[] {
  const texts: string[] = [];
  for (let text = reply.optionalText(); text !== undefined; text = reply.optionalText()) {
    texts.push(text);
  }
  return texts;
}

function shortageOf(reply: ReplyReader): ShortLine[] {
  const lines: ShortLine[] = [];
  for (let productId = reply.optionalText(); productId !== undefined; productId = reply.optionalText()) {
    lines.push({ productId, requested: reply.integer(), available: reply.integer() });
  }
  return lines;
}

function lineAt(lines: readonly Line[] | undefined, index: number): Line {
  const line = lines?.[index];
  if (line === undefined) {
    throw new Error(`A script of the ledger refused line ${index}, which was not sent`);
  }
  return line;
}

/** Redis orders members of a sorted set by their bytes where their scores are the same. */
function compareIds(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/** Pairs of member and score. */
function deadlinesOf(flat: readonly string[]): Deadline[] {
  const pairs: Deadline[] = [];
  for (let i = 0; i + 1 < flat.length; i += 2) {
    pairs.push({ id: flat[i] ?? "", deadline: Number(flat[i + 1]) });
  }
  return pairs;
}
