import type { Line } from "../../server/inventory/reservation.ts";
import type { Call, Result } from "./calls.ts";
import type { Recorded } from "./history.ts";

/** Sends a call to a store. Resolves with `undefined` if the response was lost. */
export type Ask = (call: Call) => Promise<Result | undefined>;

const LONG_MS = 3_600_000;
/** Attempts for a final read, in case the machine stalls for a second. */
const LOOKS_MAX = 5;
const MICROS = 1_700_000_000_000_000;

/** Seeded pseudo-random numbers: mulberry32 by Tommy Ettinger. */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** A whole number from 0 up to `below`. */
  roll(below: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  }

  pick<T>(items: readonly T[]): T | undefined {
    return items.length === 0 ? undefined : items[this.roll(items.length)];
  }
}

/** Two products with few units, and the IDs that clients used. Every shop is checked separately. */
class Shop {
  readonly productIds: readonly [string, string];
  readonly reservationIds: string[] = [];
  readonly #name: string;
  #ids = 0;

  constructor(name: string) {
    this.#name = name;
    this.productIds = [`${name}.a`, `${name}.b`];
  }

  newId(word: string): string {
    return `${this.#name}.${word}${++this.#ids}`;
  }

  /** The next call of a client: mostly of checkouts, including those of other clients. */
  nextCall(dice: Dice): Call {
    const productId = dice.pick(this.productIds) ?? "";
    const known = dice.pick(this.reservationIds.slice(-6));
    const dieFace = dice.roll(100);
    if (known === undefined || dieFace < 24) {
      const reservationId = this.newId("r");
      this.reservationIds.push(reservationId);
      return {
        kind: "reserve",
        reservationId,
        lines: this.#lines(dice),
        ttlMs: dice.roll(6) === 0 ? 15 : LONG_MS,
      };
    }
    if (dieFace < 40) {
      const lines = dice.roll(3) === 0 ? [{ productId, quantity: 1 }] : undefined;
      return { kind: "commit", reservationId: known, lines, strict: dice.roll(4) === 0 };
    }
    if (dieFace < 48) {
      return { kind: "release", reservationId: dice.roll(12) === 0 ? this.#unmade() : known };
    }
    if (dieFace < 52) {
      return { kind: "extend", reservationId: known, ttlMs: LONG_MS };
    }
    if (dieFace < 60) {
      const lines = [{ productId, quantity: 1 }];
      return { kind: "return", reservationId: known, returnId: this.newId("t"), lines };
    }
    if (dieFace < 72) {
      return { kind: "get", reservationId: known };
    }
    if (dieFace < 90) {
      return { kind: dieFace < 81 ? "ledger" : "stock", productId };
    }
    return this.#supply(dice, productId, dieFace);
  }

  #supply(dice: Dice, productId: string, dieFace: number): Call {
    if (dieFace < 94) {
      const delta = dice.roll(2) === 0 ? 2 : -1;
      return { kind: "adjust", productId, delta, adjustmentId: this.newId("a") };
    }
    if (dieFace < 97) {
      return { kind: "put", productId, declared: 6 + dice.roll(4), micros: MICROS + dice.roll(1_000) };
    }
    if (dieFace === 97) {
      // Usually older than the newest update, and soon superseded.
      return { kind: "delete", productId, micros: MICROS + dice.roll(600) };
    }
    return dieFace === 98
      ? {
          kind: "count",
          productId,
          count: 4 + dice.roll(4),
          expectedVersion: undefined,
          countId: this.newId("c"),
        }
      : { kind: "safety", productId, safety: dice.roll(3) };
  }

  #lines(dice: Dice): Line[] {
    const [a, b] = this.productIds.map((productId) => ({ productId, quantity: 1 + dice.roll(3) }));
    const all = [a, b].filter((line) => line !== undefined);
    return dice.roll(3) === 0 ? all : [dice.pick(all) ?? { productId: this.productIds[0], quantity: 1 }];
  }

  /** An ID that may be reserved later: a release that arrives before its reserve. */
  #unmade(): string {
    const reservationId = this.newId("r");
    this.reservationIds.push(reservationId);
    return reservationId;
  }
}

export interface RoundOptions {
  /** Prefix of the product IDs of this round, which must be new to the store. */
  readonly name: string;
  readonly seed: number;
  readonly clients: number;
  readonly shops: number;
  readonly callsPerClient: number;
  /** The connections to the store; clients are distributed over them in turn. */
  readonly asks: readonly Ask[];
  /** Awaited after a lost response, so that clients do not spend their calls during an outage. */
  readonly recovered?: (ask: Ask) => Promise<unknown>;
}

/** Many concurrent clients of a few shops, with a record of every call. */
export class Round {
  readonly history: Recorded[] = [];
  readonly shops: readonly Shop[];
  readonly #options: RoundOptions;
  #lost = 0;
  #served = false;
  #waiting: { readonly isOver: () => boolean; readonly resolve: () => void }[] = [];

  constructor(options: RoundOptions) {
    this.#options = options;
    this.shops = Array.from({ length: options.shops }, (_, n) => new Shop(`${options.name}.${n}`));
  }

  /** The number of calls whose response arrived or was lost. */
  get calls(): number {
    return this.history.length;
  }

  get lost(): number {
    return this.#lost;
  }

  /** Stocks the shops, runs the calls of all clients, and finally reads everything. */
  async run(): Promise<void> {
    await this.stock();
    await this.serve();
    await this.look();
  }

  async stock(): Promise<void> {
    const [ask] = this.#options.asks;
    const products = this.shops.flatMap((shop) => shop.productIds);
    await Promise.all(
      products.map((productId) =>
        this.#record(-1, ask, { kind: "put", productId, declared: 8, micros: MICROS }),
      ),
    );
  }

  /** Resolves when all clients have finished. */
  async serve(): Promise<void> {
    const { clients } = this.#options;
    await Promise.all(Array.from({ length: clients }, (_, client) => this.#serveClient(client)));
    this.#served = true;
    this.#tellWaiting();
  }

  get isServed(): boolean {
    return this.#served;
  }

  /** Resolves after this many further calls, or when all are done. */
  progress(calls: number): Promise<void> {
    const goal = this.calls + calls;
    return this.#until(() => this.calls >= goal);
  }

  /** Resolves after this many further lost responses, or when all calls are done. */
  losses(results: number): Promise<void> {
    const goal = this.#lost + results;
    return this.#until(() => this.#lost >= goal);
  }

  /** Resolves when all calls are done. */
  served(): Promise<void> {
    return this.#until(() => false);
  }

  #until(isOver: () => boolean): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push({ isOver, resolve });
    this.#tellWaiting();
    return promise;
  }

  #tellWaiting(): void {
    this.#waiting = this.#waiting.filter(({ isOver, resolve }) => {
      const isDone = this.#served || isOver();
      if (isDone) {
        resolve();
      }
      return !isDone;
    });
  }

  /** Reads all products and reservations, so that the history shows whether acknowledged writes persist. */
  async look(): Promise<void> {
    const { asks, recovered } = this.#options;
    const [ask] = asks;
    const calls = this.shops.flatMap((shop): Call[] => [
      ...shop.productIds.map((productId): Call => ({ kind: "ledger", productId })),
      ...shop.reservationIds.map((reservationId): Call => ({ kind: "get", reservationId })),
    ]);
    await Promise.all(
      calls.map(async (call) => {
        for (let n = 0; n < LOOKS_MAX && (await this.#record(-1, ask, call)) === undefined; n++) {
          await (ask && recovered?.(ask));
        }
      }),
    );
  }

  async #serveClient(client: number): Promise<void> {
    const { asks, seed, callsPerClient, recovered } = this.#options;
    const ask = asks[client % asks.length];
    const dice = new Dice(seed * 1_009 + client);
    for (let n = 0; n < callsPerClient; n++) {
      const call = dice.pick(this.shops)?.nextCall(dice);
      if (call === undefined) {
        return;
      }
      // Clients retry a lost call with the same ID, as they should. Sometimes they give up, or repeat
      // a call that succeeded.
      for (let again = true; again; ) {
        const result = await this.#record(client, ask, call);
        if (result === undefined && ask !== undefined) {
          await recovered?.(ask);
        }
        again = dice.roll(10) < (result === undefined ? 7 : 1);
      }
    }
  }

  async #record(client: number, ask: Ask | undefined, call: Call): Promise<Result | undefined> {
    const startMs = performance.now();
    const result = await ask?.(call);
    if (result === undefined) {
      this.#lost += 1;
      this.history.push({ client, call, startMs, end: undefined });
    } else {
      this.history.push({ client, call, startMs, end: { atMs: performance.now(), result } });
    }
    this.#tellWaiting();
    return result;
  }
}
