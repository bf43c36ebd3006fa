import { type Client, Code, ConnectError } from "@connectrpc/connect";
import type { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { DEMO_CATALOG } from "./catalog.ts";

export interface VisitorLimits {
  /** How long a unit is held. Also the period to which the other limits apply. */
  readonly holdMs: number;
  /** Reservations that one visitor may make in a period, whatever became of them. */
  readonly perVisitorMax: number;
  /** Reservations that all visitors together may make in a period. */
  readonly totalMax: number;
}

export const VISITOR_LIMITS_DEFAULT: VisitorLimits = { holdMs: 60_000, perVisitorMax: 12, totalMax: 240 };

/** Why a visitor's request is refused. */
export type VisitorRefusalReason =
  | "invalid"
  | "unknown_product"
  | "sold_out"
  | "reused"
  | "ended"
  | "limited"
  | "unavailable";

export class VisitorRefusal extends Error {
  override readonly name = "VisitorRefusal";
  readonly reason: VisitorRefusalReason;
  /** When a request that is refused as `limited` may succeed. */
  readonly retryAfterMs: number | undefined;

  constructor(reason: VisitorRefusalReason, message: string, retryAfterMs?: number) {
    super(message);
    this.reason = reason;
    this.retryAfterMs = retryAfterMs;
  }
}

interface Hold {
  readonly productId: string;
  readonly visitor: string;
  /** Of this server. That of the store is the same or later, so that a purchase never comes too late. */
  readonly deadlineMs: number;
}

/** 128 bits. */
const RANDOM_ID = /^[0-9a-f]{32}$/;
/** Distinguishes the reservations of visitors from those of Orders and of the demo's shoppers. */
const ID_PREFIX = "demo-visitor-";
const DEMO_PRODUCT_IDS: ReadonlySet<string> = new Set(DEMO_CATALOG.map(({ productId }) => productId));

/**
 * What visitors of the demo may do: reserve one unit of a demo product for a minute, and commit or release that
 * reservation. The visitor's browser chooses the ID, 128 random bits, so that a request without a response can be sent
 * again. Knowing the ID authorizes the visitor; an ID that was not reserved here within the last minute is refused, so
 * no other reservation can be reached.
 */
export class VisitorReservations {
  readonly #limits: VisitorLimits;
  readonly #now: () => number;
  #client: Client<typeof ReservationService> | undefined;
  /** By ID, the oldest first: all have the same lifetime. At most `totalMax`. */
  readonly #holds = new Map<string, Hold>();

  constructor(limits: Partial<VisitorLimits> = {}, now = () => performance.now()) {
    this.#limits = { ...VISITOR_LIMITS_DEFAULT, ...limits };
    this.#now = now;
  }

  /** Requests are refused as `unavailable` before this is called: the demo has no products yet. */
  open(client: Client<typeof ReservationService>): void {
    this.#client = client;
  }

  /** Reserves one unit. Safe to repeat with the same ID. Returns how long it is held from now, ms. */
  async reserve(visitor: string, id: string, productId: string): Promise<number> {
    const client = this.#ready(id);
    if (!DEMO_PRODUCT_IDS.has(productId)) {
      throw new VisitorRefusal(
        "unknown_product",
        `productId is ${JSON.stringify(productId.slice(0, 40))}; only products of the demo can be reserved here`,
      );
    }
    this.#dropEnded();
    const hold = this.#holds.get(id) ?? this.#add(visitor, id, productId);
    if (hold.productId !== productId) {
      throw new VisitorRefusal("reused", `reservationId ${id} belongs to a reservation of ${hold.productId}`);
    }
    try {
      await client.reserve({
        reservationId: ID_PREFIX + id,
        lines: [{ productId, quantity: 1 }],
        ttl: { seconds: BigInt(Math.ceil(this.#limits.holdMs / 1_000)) },
      });
    } catch (error) {
      const refusal = refusalOf(error, "sold_out");
      if (refusal.reason === "sold_out") {
        this.#holds.delete(id);
      }
      throw refusal;
    }
    return Math.max(0, hold.deadlineMs - this.#now());
  }

  /** Buys the unit. Safe to repeat. */
  async commit(id: string): Promise<void> {
    await this.#end(id, (client, reservationId) => client.commitReservation({ reservationId }));
  }

  /** Returns the unit. Safe to repeat. */
  async release(id: string): Promise<void> {
    await this.#end(id, (client, reservationId) => client.releaseReservation({ reservationId }));
  }

  async #end(
    id: string,
    call: (client: Client<typeof ReservationService>, reservationId: string) => Promise<unknown>,
  ): Promise<void> {
    const client = this.#ready(id);
    this.#dropEnded();
    if (!this.#holds.has(id)) {
      throw new VisitorRefusal("ended", `Reservation ${id} has expired, or was never made`);
    }
    try {
      await call(client, ID_PREFIX + id);
    } catch (error) {
      throw refusalOf(error, "ended");
    }
  }

  #ready(id: string): Client<typeof ReservationService> {
    if (!RANDOM_ID.test(id)) {
      throw new VisitorRefusal(
        "invalid",
        `reservationId is ${JSON.stringify(id.slice(0, 40))}; give 32 random hexadecimal digits in lower case`,
      );
    }
    if (this.#client === undefined) {
      throw new VisitorRefusal("unavailable", "The demo has not started yet");
    }
    return this.#client;
  }

  #add(visitor: string, id: string, productId: string): Hold {
    const { holdMs, perVisitorMax, totalMax } = this.#limits;
    const holds = [...this.#holds.values()];
    const own = holds.filter((hold) => hold.visitor === visitor);
    const [oldest, limit, subject] =
      own.length >= perVisitorMax
        ? [own[0], perVisitorMax, "A visitor"]
        : holds.length >= totalMax
          ? [holds[0], totalMax, "All visitors together"]
          : [];
    if (oldest !== undefined) {
      throw new VisitorRefusal(
        "limited",
        `${subject} may reserve ${limit} times in ${holdMs / 1_000} s`,
        oldest.deadlineMs - this.#now(),
      );
    }
    const hold = { productId, visitor, deadlineMs: this.#now() + holdMs };
    this.#holds.set(id, hold);
    return hold;
  }

  #dropEnded(): void {
    const nowMs = this.#now();
    for (const [id, { deadlineMs }] of this.#holds) {
      if (deadlineMs > nowMs) {
        return;
      }
      this.#holds.delete(id);
    }
  }
}

/** `precondition`: what FAILED_PRECONDITION means for this call. */
function refusalOf(error: unknown, precondition: VisitorRefusalReason): VisitorRefusal {
  const { code, rawMessage } = ConnectError.from(error);
  if (code === Code.FailedPrecondition || code === Code.NotFound) {
    return new VisitorRefusal(precondition, rawMessage);
  }
  return new VisitorRefusal("unavailable", `The shop cannot answer now: ${rawMessage}`);
}
