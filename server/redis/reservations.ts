import { EXPIRY_ACTOR } from "../inventory/actor.ts";
import {
  commitTooLarge,
  idReused,
  notInReservation,
  productUnknown,
  releasedBeforeReserved,
  reservationEnded,
  reservationUnknown,
  returnOutOfRange,
  returnTooLarge,
  stockShort,
} from "../inventory/refusals.ts";
import {
  type ExpiredReservation,
  type Line,
  linesFingerprint,
  RESERVATION_TTL_MS_MAX,
  type Reservation,
  returnFingerprint,
  sumLines,
} from "../inventory/reservation.ts";
import type {
  CommitRequest,
  ProductReservations,
  ReservationStore,
  ReservationsPage,
  ReserveRequest,
  ReturnRequest,
} from "../inventory/store.ts";
import { ActiveReservations } from "./active-reservations.ts";
import { type Primaries, sendByCommand } from "./connection/primaries.ts";
import { type DamagedRecords, recordDamaged } from "./damaged-records.ts";
import type { Keys } from "./keys.ts";
import { type Mutations, unexpectedStatus } from "./mutations/mutations.ts";
import type { PlainKeys } from "./plain-keys.ts";
import type { ReplyReader } from "./reply.ts";
import {
  decodeLines,
  decodeReservation,
  decodeShortage,
  decodeState,
  encodeLines,
} from "./reservation-record.ts";

/** Weight of a commit or release in a batch: only the record holds the number of products it touches. */
const PRODUCTS_OF_A_RESERVATION = 3;

/** A later deadline than this is a damaged record: the longest time to live, and a day by which clocks may differ. */
export const DEADLINE_AHEAD_MS_MAX = RESERVATION_TTL_MS_MAX + 24 * 3_600_000;

/** The reservations in Redis. Every mutation is one operation of scripts/reservation.lua. */
export class RedisReservations implements ReservationStore {
  readonly #keys: Keys;
  readonly #mutations: Mutations;
  readonly #plainKeys: PlainKeys;
  readonly #primaries: Primaries;
  readonly #damagedRecords: DamagedRecords;
  readonly #active: ActiveReservations;
  #firstBucket = 0;

  constructor(
    keys: Keys,
    mutations: Mutations,
    plainKeys: PlainKeys,
    primaries: Primaries,
    damagedRecords: DamagedRecords,
  ) {
    this.#keys = keys;
    this.#mutations = mutations;
    this.#plainKeys = plainKeys;
    this.#primaries = primaries;
    this.#damagedRecords = damagedRecords;
    this.#active = new ActiveReservations(keys, primaries, damagedRecords);
  }

  async reserve({ reservationId, lines: sentLines, ttlMs, actor }: ReserveRequest): Promise<Reservation> {
    const request = { reservationId, lines: sumLines(sentLines), ttlMs, actor };
    let reply = await this.#reserveOnce(request);
    let status = reply.text();
    if (status === "absent") {
      const absent = reply.texts();
      const adopted = await Promise.all(absent.map((id) => this.#plainKeys.adopt(id)));
      const missing = absent.find((_, index) => adopted[index] === undefined);
      if (missing !== undefined) {
        throw productUnknown(missing);
      }
      reply = await this.#reserveOnce(request);
      status = reply.text();
    }
    switch (status) {
      case "held":
        return newReservation(request, reply.integer());
      case "ok":
        return decodeReservation(reservationId, reply.text());
      case "short":
        throw stockShort(decodeShortage(reply));
      case "reused":
        throw idReused("reservation_id", reservationId);
      case "released_before":
        throw releasedBeforeReserved(reservationId);
      case "unknown":
        throw productUnknown(reply.text());
      default:
        throw unexpectedStatus(status);
    }
  }

  async commit({ reservationId, lines: sentLines = [], strict, actor }: CommitRequest): Promise<Reservation> {
    const lines = sumLines(sentLines);
    const args = [
      strict ? "strict" : "",
      ...lines.flatMap(({ productId, quantity }) => [productId, quantity]),
    ];
    const reply = await this.#onReservation(reservationId, "commit_reservation", args, actor);
    const status = reply.text();
    switch (status) {
      case "ok":
        return decodeReservation(reservationId, reply.text());
      case "missing":
        throw reservationUnknown(reservationId);
      case "ended":
        throw reservationEnded("commit", reservationId, decodeState(reply.text()));
      case "reused":
        throw idReused("reservation_id", reservationId);
      case "short":
        throw stockShort(decodeShortage(reply));
      case "too_large": {
        const { productId } = lineAt(lines, reply.integer());
        const held = reply.integer();
        throw held === 0
          ? notInReservation(sentLines, productId)
          : commitTooLarge(sentLines, productId, held);
      }
      default:
        throw unexpectedStatus(status);
    }
  }

  async release(reservationId: string, actor?: string): Promise<Reservation> {
    const reply = await this.#onReservation(reservationId, "release_reservation", [], actor);
    const status = reply.text();
    switch (status) {
      case "ok":
        return decodeReservation(reservationId, reply.text());
      case "ended":
        throw reservationEnded("release", reservationId, decodeState(reply.text()));
      default:
        throw unexpectedStatus(status);
    }
  }

  async extend(reservationId: string, ttlMs: number): Promise<Reservation> {
    const reply = await this.#onReservation(reservationId, "extend_reservation", [ttlMs]);
    const status = reply.text();
    switch (status) {
      case "ok":
        return decodeReservation(reservationId, reply.text());
      case "missing":
        throw reservationUnknown(reservationId);
      case "ended":
        throw reservationEnded("extend", reservationId, decodeState(reply.text()));
      default:
        throw unexpectedStatus(status);
    }
  }

  async return({ reservationId, returnId, lines: sentLines, actor }: ReturnRequest): Promise<Reservation> {
    const lines = sumLines(sentLines);
    const contentFingerprint = returnFingerprint(reservationId, lines);
    const reply = await this.#mutations.run({
      name: "return_units",
      keys: [
        this.#keys.reservation(reservationId),
        this.#keys.operation("return", reservationId, returnId),
        this.#keys.reference(this.#keys.bucketOf(reservationId), returnId),
      ],
      args: [
        returnId,
        contentFingerprint,
        ...lines.flatMap(({ productId, quantity }) => [productId, quantity]),
      ],
      products: lines.length,
      isIdempotent: true,
      actor,
    });
    const status = reply.text();
    switch (status) {
      case "ok":
        return decodeReservation(reservationId, reply.text());
      case "missing":
        throw reservationUnknown(reservationId);
      case "reused":
        throw idReused("return_id", returnId);
      case "ended":
        throw reservationEnded("return units of", reservationId, decodeState(reply.text()));
      case "other":
        throw notInReservation(sentLines, lineAt(lines, reply.integer()).productId);
      case "too_large": {
        const { productId, quantity } = lineAt(lines, reply.integer());
        throw returnTooLarge(productId, quantity, reply.integer());
      }
      case "range": {
        const { productId, quantity } = lineAt(lines, reply.integer());
        throw returnOutOfRange(productId, quantity, reply.integer());
      }
      default:
        throw unexpectedStatus(status);
    }
  }

  findKnown(reservationIds: readonly string[]): Promise<ReadonlySet<string>> {
    return findRecords(this.#keys, this.#primaries, reservationIds);
  }

  async get(reservationId: string): Promise<Reservation> {
    const key = this.#keys.reservation(reservationId);
    const text = await this.#primaries.send(this.#keys.bucketOf(reservationId), (client) =>
      client.get(key).catch((error) => this.#damagedRecords.foundForeignType("reservation", key, error)),
    );
    if (text === null) {
      throw reservationUnknown(reservationId);
    }
    const reservation =
      text === undefined
        ? undefined
        : this.#damagedRecords.decode("reservation", key, () => decodeReservation(reservationId, text));
    if (reservation === undefined) {
      throw recordDamaged("reservation", key, text ?? "");
    }
    return reservation;
  }

  list(page: ReservationsPage): Promise<Reservation[]> {
    return this.#active.list(page);
  }

  listOfProduct(productId: string, page: ReservationsPage): Promise<ProductReservations> {
    return this.#active.listOfProduct(productId, page);
  }

  countActive(): Promise<number> {
    return this.#active.count();
  }

  async expireDue(limit: number): Promise<ExpiredReservation[]> {
    const reply = await this.#mutations.run({
      name: "expire_due",
      keys: this.#deadlinesRotated(),
      args: [limit, DEADLINE_AHEAD_MS_MAX],
      products: limit,
      isIdempotent: true,
      actor: EXPIRY_ACTOR,
    });
    reply.text();
    const expired: ExpiredReservation[] = [];
    for (let id = reply.optionalText(); id !== undefined; id = reply.optionalText()) {
      expired.push({ reservationId: id, lines: decodeLines(reply.text()) });
    }
    return expired;
  }

  /** The deadlines of all buckets, starting at another bucket each time, so that a busy bucket does not starve others. */
  #deadlinesRotated(): string[] {
    const { buckets } = this.#keys;
    this.#firstBucket = (this.#firstBucket + 1) % buckets;
    return Array.from({ length: buckets }, (_, n) => this.#keys.deadlines((this.#firstBucket + n) % buckets));
  }

  #reserveOnce({ reservationId, lines, ttlMs, actor }: ReserveRequest): Promise<ReplyReader> {
    return this.#mutations.run({
      name: "reserve",
      keys: [
        ...this.#reservationKeys(reservationId),
        ...lines.flatMap(({ productId }) => this.#keys.recordKeys(productId)),
      ],
      args: [
        reservationId,
        linesFingerprint(lines),
        ttlMs,
        encodeLines(lines, this.#keys),
        ...lines.flatMap(({ productId, quantity }) => [productId, quantity]),
      ],
      products: lines.length,
      isIdempotent: true,
      actor,
    });
  }

  #onReservation(
    reservationId: string,
    name: string,
    args: readonly (string | number)[],
    actor?: string,
  ): Promise<ReplyReader> {
    return this.#mutations.run({
      name,
      keys: this.#reservationKeys(reservationId),
      args: [reservationId, ...args],
      products: PRODUCTS_OF_A_RESERVATION,
      // Nothing tells a repeated extension from a new one, and it would be refused after a release in between.
      isIdempotent: name !== "extend_reservation",
      actor,
    });
  }

  #reservationKeys(reservationId: string): string[] {
    return [this.#keys.reservation(reservationId), this.#keys.deadlines(this.#keys.bucketOf(reservationId))];
  }
}

/** The IDs under which there is a record. */
export async function findRecords(
  keys: Keys,
  primaries: Primaries,
  reservationIds: readonly string[],
): Promise<ReadonlySet<string>> {
  const exist = await sendByCommand(
    primaries,
    reservationIds,
    (id) => keys.bucketOf(id),
    async (client, ids) => {
      const names = ids.map((id) => keys.reservation(id));
      // Nearly always none exists, which one command shows.
      return (await client.exists(names)) === 0
        ? ids.map(() => 0)
        : Promise.all(names.map((name) => client.exists(name)));
    },
  );
  return new Set(reservationIds.filter((_, index) => exist[index] === 1));
}

/** The reservation that a request has just made. */
function newReservation({ reservationId, lines, ttlMs }: ReserveRequest, createTimeMs: number): Reservation {
  return {
    reservationId,
    state: "active",
    lines,
    committedLines: [],
    createTimeMs,
    expireTimeMs: createTimeMs + ttlMs,
    endTimeMs: undefined,
    revived: false,
  };
}

function lineAt(lines: readonly Line[], index: number): Line {
  const line = lines[index];
  if (line === undefined) {
    throw new Error(`A script refused line ${index}, which was not sent`);
  }
  return line;
}
