import assert from "node:assert/strict";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { type Caller, GaveUp, hasCode, shortageOf } from "./callers.ts";

export const SHORT_TTL_MS = 1_000;
const LONG_TTL_MS = 4 * 3_600_000;
/** One in this number of callers gives up after its first attempt without a response. */
const GIVES_UP_ONE_IN = 4;
/** Received goods replace about the units sold, so that shortages occur now and then. */
const RECEIVED_MAX = 80;

export interface Line {
  readonly productId: string;
  readonly quantity: number;
}

/** The result of one step for its caller: acknowledged, refused because of a shortage, or lost. */
export type Known = "acknowledged" | "short" | "unknown";

/** One order as its caller knows it. Steps that were not called are absent. */
export interface Order {
  readonly id: string;
  readonly lines: readonly Line[];
  readonly ttlMs: number;
  reserve?: Known;
  commit?: Known;
  committed?: readonly Line[];
  release?: Known;
  return?: Known;
  returned?: readonly Line[];
  /** Whether the response to an attempt of a step was lost: that attempt may take effect after a later one has a response. */
  retried?: boolean;
  readonly shortages: Shortage[];
}

/** A line of a refusal, and the attempt that was refused. Times are ms since 1970. */
export interface Shortage {
  readonly productId: string;
  readonly requested: number;
  readonly available: number;
  readonly startMs: number;
  readonly endMs: number;
}

/** An adjustment as its caller knows it. */
export interface Adjustment {
  readonly id: string;
  readonly productId: string;
  readonly delta: number;
  known?: Known;
}

export type Random = (bound: number) => number;

/** Pseudo-random numbers below a bound, determined by the seed (mulberry32). */
export function randomOf(seed: number): Random {
  let state = seed >>> 0;
  return (bound) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % bound;
  };
}

/** Places orders one after the other, and records each. */
export class Shopper {
  readonly orders: Order[] = [];
  readonly adjustments: Adjustment[] = [];
  readonly #name: string;
  readonly #caller: Caller;
  readonly #products: readonly string[];
  readonly #random: Random;

  constructor(name: string, caller: Caller, products: readonly string[], random: Random) {
    this.#name = name;
    this.#caller = caller;
    this.#products = products;
    this.#random = random;
  }

  /** One order, from its reservation to the last step that this caller makes. */
  async shop(): Promise<void> {
    const random = this.#random;
    if (random(20) === 0) {
      await this.#adjust();
    }
    const order: Order = {
      id: `${this.#name}-${this.orders.length}`,
      lines: this.#lines(),
      ttlMs: random(4) === 0 ? SHORT_TTL_MS : LONG_TTL_MS,
      shortages: [],
    };
    this.orders.push(order);
    order.reserve = "unknown";
    order.reserve = await this.#step(order, (triesMax) =>
      this.#caller.ask(
        ({ reservations }, options) =>
          reservations.reserve(
            { reservationId: order.id, lines: [...order.lines], ttl: durationFromMs(order.ttlMs) },
            options,
          ),
        triesMax,
      ),
    );
    if (order.reserve !== "acknowledged") {
      return;
    }
    const way = random(10);
    if (way < 6) {
      await this.#commit(order);
    } else if (way < 8) {
      await this.#release(order);
    }
  }

  async #commit(order: Order): Promise<void> {
    const isPartial = this.#random(4) === 0;
    const committed = isPartial ? this.#some(order.lines) : order.lines;
    order.committed = committed;
    order.commit = "unknown";
    order.commit = await this.#step(order, (triesMax) =>
      this.#caller.ask(
        ({ reservations }, options) =>
          reservations.commitReservation(
            { reservationId: order.id, lines: isPartial ? [...committed] : [] },
            options,
          ),
        triesMax,
      ),
    );
    if (order.commit === "acknowledged" && this.#random(5) === 0) {
      await this.#return(order, committed);
    }
  }

  async #return(order: Order, committed: readonly Line[]): Promise<void> {
    const returned = this.#some(committed);
    order.returned = returned;
    order.return = "unknown";
    order.return = await this.#step(order, (triesMax) =>
      this.#caller.ask(
        ({ reservations }, options) =>
          reservations.returnReservation(
            { reservationId: order.id, returnId: `return-${order.id}`, lines: [...returned] },
            options,
          ),
        triesMax,
      ),
    );
    assert.notEqual(order.return, "short", order.id);
  }

  async #release(order: Order): Promise<void> {
    order.release = "unknown";
    order.release = await this.#step(order, (triesMax) =>
      this.#caller.ask(
        ({ reservations }, options) => reservations.releaseReservation({ reservationId: order.id }, options),
        triesMax,
      ),
    );
    assert.notEqual(order.release, "short", order.id);
  }

  async #adjust(): Promise<void> {
    const adjustment: Adjustment = {
      id: `adjustment-${this.#name}-${this.adjustments.length}`,
      productId: this.#product(),
      delta: 1 + this.#random(RECEIVED_MAX),
    };
    this.adjustments.push(adjustment);
    adjustment.known = "unknown";
    const { id: adjustmentId, productId, delta } = adjustment;
    adjustment.known = await this.#step(undefined, (triesMax) =>
      this.#caller.ask(
        ({ supply }, options) => supply.adjustStock({ adjustmentId, productId, delta }, options),
        triesMax,
      ),
    );
  }

  /** Most callers retry until they have a response. Some give up and never learn the outcome. */
  async #step(order: Order | undefined, call: (triesMax: number) => Promise<unknown>): Promise<Known> {
    const { retries } = this.#caller;
    try {
      await call(this.#random(GIVES_UP_ONE_IN) === 0 ? 1 : Number.POSITIVE_INFINITY);
      return "acknowledged";
    } catch (error) {
      if (error instanceof GaveUp) {
        return "unknown";
      }
      if (shortageOf(error) !== undefined || hasCode(error, Code.FailedPrecondition)) {
        const lines = shortageOf(error);
        assert.ok(lines, `a refusal for another reason: ${error}`);
        const attempt = { startMs: this.#caller.attemptedAtMs, endMs: Date.now() };
        order?.shortages.push(
          ...lines.map(({ productId, requested, available }) => ({
            ...{ productId, requested, available },
            ...attempt,
          })),
        );
        return "short";
      }
      throw error;
    } finally {
      if (order !== undefined && this.#caller.retries > retries) order.retried = true;
    }
  }

  #lines(): Line[] {
    const count = 1 + this.#random(3);
    const first = this.#random(this.#products.length);
    return Array.from({ length: count }, (_, n) => ({
      productId: this.#products[(first + n) % this.#products.length] ?? "",
      quantity: 1 + this.#random(3),
    }));
  }

  /** Some of the lines, some of the units. */
  #some(lines: readonly Line[]): Line[] {
    const count = 1 + this.#random(lines.length);
    return lines
      .slice(0, count)
      .map(({ productId, quantity }) => ({ productId, quantity: 1 + this.#random(quantity) }));
  }

  #product(): string {
    return this.#products[this.#random(this.#products.length)] ?? "";
  }
}
