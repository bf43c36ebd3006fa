import assert from "node:assert/strict";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { type Caller, GaveUp, hasCode, shortageOf } from "./callers.ts";

export const SHORT_TTL_MS = 1_000;
const LONG_TTL_MS = 4 * 3_600_000;
/** One caller in so many gives up where its first try is not answered. */
const GIVES_UP_ONE_IN = 4;
/** Goods received replace about what is sold, so that stock is short now and then. */
const RECEIVED_MAX = 80;

export interface Line {
  readonly productId: string;
  readonly quantity: number;
}

/** What a caller knows of one step: it was acknowledged, refused for want of stock, or its answer is lost. */
export type Known = "acknowledged" | "short" | "unknown";

/** One order as its caller remembers it. Absent is what it has not asked for. */
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
}

/** An adjustment as its caller remembers it. */
export interface Adjustment {
  readonly id: string;
  readonly productId: string;
  readonly delta: number;
  known?: Known;
}

export type Random = (bound: number) => number;

/** Numbers below a bound, always the same of one seed (mulberry32). */
export function randomOf(seed: number): Random {
  let state = seed >>> 0;
  return (bound) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % bound;
  };
}

/** Takes orders through their lives, one after the other, and remembers each. */
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

  /** One order from its reservation to where this caller leaves it. */
  async shop(): Promise<void> {
    const random = this.#random;
    if (random(20) === 0) {
      await this.#adjust();
    }
    const order: Order = {
      id: `${this.#name}-${this.orders.length}`,
      lines: this.#lines(),
      ttlMs: random(4) === 0 ? SHORT_TTL_MS : LONG_TTL_MS,
    };
    this.orders.push(order);
    order.reserve = "unknown";
    order.reserve = await this.#step((triesMax) =>
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
    order.commit = await this.#step((triesMax) =>
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
    order.return = await this.#step((triesMax) =>
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
    order.release = await this.#step((triesMax) =>
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
    adjustment.known = await this.#step((triesMax) =>
      this.#caller.ask(
        ({ supply }, options) => supply.adjustStock({ adjustmentId, productId, delta }, options),
        triesMax,
      ),
    );
  }

  /** Most callers insist on an answer; some give up, and never learn what became of it. */
  async #step(call: (triesMax: number) => Promise<unknown>): Promise<Known> {
    try {
      await call(this.#random(GIVES_UP_ONE_IN) === 0 ? 1 : Number.POSITIVE_INFINITY);
      return "acknowledged";
    } catch (error) {
      if (error instanceof GaveUp) {
        return "unknown";
      }
      if (shortageOf(error) !== undefined || hasCode(error, Code.FailedPrecondition)) {
        assert.ok(shortageOf(error), `a refusal for another reason: ${error}`);
        return "short";
      }
      throw error;
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
