import { EXPIRY_ACTOR } from "../../inventory/actor.ts";
import { onHand } from "../../inventory/ledger.ts";
import { reservationUnknown } from "../../inventory/refusals.ts";
import type { ExpiredReservation, Reservation } from "../../inventory/reservation.ts";
import { Coordinator, type Outcome, type Protocol } from "../../inventory/sharded/coordinator.ts";
import type { Message, Reply } from "../../inventory/sharded/messages.ts";
import type {
  CommitRequest,
  InventoryStore,
  ProductReservations,
  ReservationStore,
  ReservationsPage,
  ReserveRequest,
  ReturnRequest,
} from "../../inventory/store.ts";
import { ActiveReservations } from "../active-reservations.ts";
import type { Primaries } from "../connection/primaries.ts";
import type { DamagedRecords } from "../damaged-records.ts";
import type { Keys } from "../keys.ts";
import type { RedisMetrics } from "../metrics.ts";
import type { Mutations } from "../mutations/mutations.ts";
import type { PlainKeys } from "../plain-keys.ts";
import { DEADLINE_AHEAD_MS_MAX, findRecords } from "../reservations.ts";
import { dueBuckets } from "./overdue.ts";
import { Repair } from "./repair.ts";
import { decodeDecided, mutationOf, replyTo } from "./steps.ts";

export interface ShardedReservationsOptions {
  readonly keys: Keys;
  readonly mutations: Mutations;
  readonly plainKeys: PlainKeys;
  readonly primaries: Primaries;
  readonly metrics?: RedisMetrics | undefined;
  readonly damagedRecords: DamagedRecords;
  readonly readLedgers: InventoryStore["batchGetLedgers"];
}

/**
 * The reservations in a Redis Cluster: runs the protocol of `Coordinator` with the steps of scripts/holds.lua and
 * scripts/decisions.lua, each on one bucket.
 */
export class ShardedReservations implements ReservationStore {
  readonly repair: Repair;
  readonly #keys: Keys;
  readonly #mutations: Mutations;
  readonly #plainKeys: PlainKeys;
  readonly #primaries: Primaries;
  readonly #active: ActiveReservations;
  readonly #readLedgers: InventoryStore["batchGetLedgers"];
  readonly #coordinator: Coordinator;
  /** What is done after callers have their answers. */
  readonly #following = new Set<Promise<void>>();

  constructor(options: ShardedReservationsOptions) {
    const { keys, mutations, plainKeys, primaries, damagedRecords, readLedgers, metrics } = options;
    this.#plainKeys = plainKeys;
    this.#keys = keys;
    this.#mutations = mutations;
    this.#primaries = primaries;
    this.#readLedgers = readLedgers;
    this.#active = new ActiveReservations(keys, primaries, damagedRecords);
    this.#coordinator = new Coordinator((id) => keys.bucketOf(id));
    this.repair = new Repair({
      keys,
      mutations,
      primaries,
      coordinator: this.#coordinator,
      run: (protocol) => this.#toEnd(protocol),
      metrics,
    });
  }

  reserve(request: ReserveRequest): Promise<Reservation> {
    return this.#run(this.#coordinator.reserve(request));
  }

  commit(request: CommitRequest): Promise<Reservation> {
    return this.#run(this.#coordinator.commit(request));
  }

  release(reservationId: string, actor?: string): Promise<Reservation> {
    return this.#run(this.#coordinator.release(reservationId, actor));
  }

  extend(reservationId: string, ttlMs: number): Promise<Reservation> {
    return this.#run(this.#coordinator.extend(reservationId, ttlMs));
  }

  async return(request: ReturnRequest): Promise<Reservation> {
    const ids = [...new Set(request.lines.map(({ productId }) => productId))];
    const ledgers = await this.#readLedgers(ids);
    const units = new Map(ids.map((id, index) => [id, ledgers[index]]));
    return this.#run(
      this.#coordinator.return(request, (productId) => {
        const ledger = units.get(productId);
        return ledger && onHand(ledger);
      }),
    );
  }

  findKnown(reservationIds: readonly string[]): Promise<ReadonlySet<string>> {
    return findRecords(this.#keys, this.#primaries, reservationIds);
  }

  async get(reservationId: string): Promise<Reservation> {
    const reply = await this.#send({
      step: "read",
      bucket: this.#keys.bucketOf(reservationId),
      reservationId,
    });
    if (reply.status !== "ok" || !("reservation" in reply)) {
      throw reservationUnknown(reservationId);
    }
    return reply.reservation;
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

  /** Expires reservations in every bucket that can be reached. Rejects if none can. */
  async expireDue(limit: number): Promise<ExpiredReservation[]> {
    const expired: ExpiredReservation[] = [];
    const due = await dueBuckets(
      this.#primaries,
      this.#keys,
      (bucket) => this.#keys.deadlines(bucket),
      Date.now(),
    );
    let buckets = due.map(({ bucket }) => bucket);
    while (buckets.length > 0 && expired.length < limit) {
      const room = limit - expired.length;
      // Divided among the buckets, so that one with many does not starve the others.
      const share = Math.max(1, Math.floor(room / buckets.length));
      const outcomes = await Promise.allSettled(
        buckets.slice(0, room).map((bucket) => this.#expire(bucket, share)),
      );
      if (outcomes.every(({ status }) => status === "rejected") && expired.length === 0) {
        throw (outcomes[0] as PromiseRejectedResult).reason;
      }
      const counts = outcomes.map((each) => (each.status === "fulfilled" ? each.value.length : 0));
      expired.push(...outcomes.flatMap((each) => (each.status === "fulfilled" ? each.value : [])));
      buckets = buckets.filter((_, index) => counts[index] === share);
    }
    return expired;
  }

  /** Resolves when what this server has left to do after its answers is done. */
  async settled(): Promise<void> {
    while (this.#following.size > 0) {
      await Promise.all(this.#following);
    }
  }

  async close(): Promise<void> {
    await this.repair.close();
  }

  async #expire(bucket: number, limit: number): Promise<ExpiredReservation[]> {
    const reply = await this.#mutations.run({
      name: "expire_home",
      keys: [this.#keys.deadlines(bucket), this.#keys.owed(bucket)],
      args: [limit, DEADLINE_AHEAD_MS_MAX],
      products: limit,
      isIdempotent: true,
      actor: EXPIRY_ACTOR,
    });
    reply.text();
    const expired: ExpiredReservation[] = [];
    for (let id = reply.optionalText(); id !== undefined; id = reply.optionalText()) {
      const { reservation, effects } = decodeDecided(id, reply.text());
      expired.push({ reservationId: id, lines: reservation.lines });
      this.#follow(this.#coordinator.settle(id, effects));
    }
    return expired;
  }

  async #run(protocol: Protocol<Outcome>): Promise<Reservation> {
    const outcome = await this.#toEnd(protocol);
    if (outcome.followUp !== undefined) {
      this.#follow(outcome.followUp);
    }
    if ("error" in outcome) {
      throw outcome.error;
    }
    return outcome.reservation;
  }

  /** Runs a part of the protocol that nobody waits for. What fails is left to the repairs. */
  #follow(protocol: Protocol<void>): void {
    const following = this.#toEnd(protocol)
      .catch(() => {})
      .finally(() => this.#following.delete(following));
    this.#following.add(following);
  }

  async #toEnd<T>(protocol: Protocol<T>): Promise<T> {
    let next = protocol.next([]);
    while (next.done !== true) {
      const replies = await Promise.allSettled(next.value.map((message) => this.#send(message)));
      const failed = replies.find((reply) => reply.status === "rejected");
      next =
        failed === undefined
          ? protocol.next(replies.map((reply) => (reply as PromiseFulfilledResult<Reply>).value))
          : protocol.throw(failed.reason);
    }
    return next.value;
  }

  async #send(message: Message): Promise<Reply> {
    if (message.step === "read" && !(await this.#mayBeKnown(message.reservationId))) {
      return { status: "absent", nextEpoch: 1 };
    }
    const mutation = mutationOf(message, this.#keys);
    let reply = await this.#mutations.run(mutation);
    if (message.step === "hold" && reply.peek() === "absent") {
      reply.text();
      const absent = reply.texts();
      const adopted = await Promise.all(absent.map((id) => this.#plainKeys.adopt(id)));
      const missing = absent.filter((_, index) => adopted[index] === undefined);
      if (missing.length > 0) {
        return { status: "short", unknown: missing, shortage: [] };
      }
      reply = await this.#mutations.run(mutation);
    }
    return replyTo(message, reply);
  }

  /**
   * Whether there may be a record under the ID: a plain read, since most IDs are new. A record that is found is read again in a step
   * that is acknowledged by replicas, so that no answer depends on what a failover can take back.
   */
  async #mayBeKnown(reservationId: string): Promise<boolean> {
    const key = this.#keys.reservation(reservationId);
    const found = await this.#primaries.send(this.#keys.bucketOf(reservationId), (client) =>
      client.exists(key),
    );
    return found === 1;
  }
}
