import { EXPIRY_ACTOR } from "../inventory/actor.ts";
import type { ReservationTrace } from "../inventory/change-history.ts";
import { onHand } from "../inventory/ledger.ts";
import { reservationUnknown } from "../inventory/refusals.ts";
import {
  compareIds,
  type ExpiredReservation,
  positionOf,
  type Reservation,
  type ReservationPosition,
} from "../inventory/reservation.ts";
import { Coordinator, type Outcome, type Protocol } from "../inventory/sharded/coordinator.ts";
import type {
  CommitRequest,
  ProductReservations,
  ReservationStore,
  ReservationsPage,
  ReserveRequest,
  ReturnRequest,
} from "../inventory/store.ts";
import { Bucket } from "./bucket.ts";
import type { Operations } from "./operations.ts";
import { ledgerOf, type Products } from "./products.ts";
import { deadlineOf, type ReservationRecord, reservationOf } from "./reservation-record.ts";

/**
 * The reservations of the memory store. It runs the protocol of a Cluster with one bucket, all steps of a call in one turn of
 * the event loop.
 */
export class Reservations implements ReservationStore {
  readonly #bucket: Bucket;
  readonly #products: Products;
  readonly #coordinator = new Coordinator(() => 0, { readsFirst: true });

  constructor(products: Products, operations: Operations, now: () => number, retentionMs: number) {
    this.#products = products;
    this.#bucket = new Bucket(products, operations, now, retentionMs);
  }

  async reserve(request: ReserveRequest): Promise<Reservation> {
    return this.#run(this.#coordinator.reserve(request));
  }

  async commit(request: CommitRequest): Promise<Reservation> {
    return this.#run(this.#coordinator.commit(request));
  }

  async release(reservationId: string, actor?: string): Promise<Reservation> {
    return this.#run(this.#coordinator.release(reservationId, actor));
  }

  async extend(reservationId: string, ttlMs: number): Promise<Reservation> {
    return this.#run(this.#coordinator.extend(reservationId, ttlMs));
  }

  async return(request: ReturnRequest): Promise<Reservation> {
    return this.#run(
      this.#coordinator.return(request, (productId) => {
        const product = this.#products.find(productId);
        return product && onHand(ledgerOf(product));
      }),
    );
  }

  async findKnown(reservationIds: readonly string[]): Promise<ReadonlySet<string>> {
    return new Set(reservationIds.filter((id) => this.#bucket.decisions.traceOf(id) !== undefined));
  }

  async get(reservationId: string): Promise<Reservation> {
    const reply = this.#bucket.decisions.read({ step: "read", bucket: 0, reservationId });
    if (reply.status === "absent") {
      throw reservationUnknown(reservationId);
    }
    return reply.reservation;
  }

  async list({ limit, after, expireBeforeMs }: ReservationsPage): Promise<Reservation[]> {
    return this.#bucket.decisions
      .active()
      .filter(
        (record) =>
          deadlineOf(record) < (expireBeforeMs ?? Number.POSITIVE_INFINITY) &&
          (after === undefined || isAfter(record, after)),
      )
      .slice(0, limit)
      .map(reservationOf);
  }

  async listOfProduct(productId: string, page: ReservationsPage): Promise<ProductReservations> {
    const found = (await this.list({ ...page, limit: Number.POSITIVE_INFINITY })).filter(({ lines }) =>
      lines.some((line) => line.productId === productId),
    );
    const reservations = found.slice(0, page.limit);
    const last = reservations.at(-1);
    return {
      reservations,
      next: found.length > page.limit && last ? positionOf(last) : undefined,
    };
  }

  async countActive(): Promise<number> {
    return this.#bucket.decisions.active().length;
  }

  async expireDue(limit: number): Promise<ExpiredReservation[]> {
    const expired = this.#bucket.decisions.expireDue(limit, EXPIRY_ACTOR);
    for (const { record, effects } of expired) {
      this.#runToEnd(this.#coordinator.settle(record.reservationId, effects));
    }
    return expired.map(({ record: { reservationId, lines } }) => ({ reservationId, lines }));
  }

  /** What the record says about the changes of the reservation. `undefined` if there is none. */
  traceOf(reservationId: string): ReservationTrace | undefined {
    return this.#bucket.decisions.traceOf(reservationId);
  }

  #run(protocol: Protocol<Outcome>): Reservation {
    const outcome = this.#runToEnd(protocol);
    if (outcome.followUp !== undefined) {
      this.#runToEnd(outcome.followUp);
    }
    if ("error" in outcome) {
      throw outcome.error;
    }
    return outcome.reservation;
  }

  #runToEnd<T>(protocol: Protocol<T>): T {
    let next = protocol.next([]);
    while (next.done !== true) {
      next = protocol.next(next.value.map((message) => this.#bucket.take(message)));
    }
    return next.value;
  }
}

function isAfter(record: ReservationRecord, { expireTimeMs, reservationId }: ReservationPosition): boolean {
  const deadline = deadlineOf(record);
  return (
    deadline > expireTimeMs ||
    (deadline === expireTimeMs && compareIds(record.reservationId, reservationId) > 0)
  );
}
