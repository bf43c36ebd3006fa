import { setTimeout as wait } from "node:timers/promises";
import { until } from "../support/until.ts";
import { Caller } from "./callers.ts";
import { type Order, randomOf, Shopper } from "./orders.ts";

const WAIT_MS_MAX = 60_000;

/** Shoppers that place orders one after the other on some servers, until they are stopped. */
export class OrderLoad implements Disposable {
  readonly callers: readonly Caller[];
  readonly shoppers: readonly Shopper[];
  readonly #pauseMs: number;
  #pausing = false;
  #stopped = false;
  #resume = Promise.withResolvers<void>();
  #idle = 0;

  /** Each shopper pauses for `pauseMs` between two orders. */
  constructor(
    count: number,
    urls: readonly string[],
    products: readonly string[],
    seed: number,
    pauseMs: number,
  ) {
    this.#pauseMs = pauseMs;
    this.callers = Array.from({ length: count }, (_, n) => new Caller(urls, n));
    this.shoppers = this.callers.map(
      (caller, n) => new Shopper(`shopper-${n}`, caller, products, randomOf(seed + n)),
    );
  }

  get orders(): readonly Order[] {
    return this.shoppers.flatMap(({ orders }) => orders);
  }

  get orderCount(): number {
    return this.shoppers.reduce((sum, { orders }) => sum + orders.length, 0);
  }

  get retries(): number {
    return this.callers.reduce((sum, { retries }) => sum + retries, 0);
  }

  /** Resolves when every shopper has stopped. */
  async run(): Promise<void> {
    const shop = async (shopper: Shopper): Promise<void> => {
      while (!this.#stopped) {
        if (this.#pausing) {
          this.#idle += 1;
          await this.#resume.promise;
          this.#idle -= 1;
        } else {
          await shopper.shop();
          await wait(this.#pauseMs);
        }
      }
    };
    await Promise.all(this.shoppers.map(shop));
  }

  /** Runs an action while no order is in progress. */
  async quietly(action: () => Promise<void>): Promise<void> {
    this.#pausing = true;
    await until(() => this.#idle === this.shoppers.length, "every shopper has a response", WAIT_MS_MAX);
    await action();
    this.#pausing = false;
    this.#resume.resolve();
    this.#resume = Promise.withResolvers();
  }

  stop(): void {
    this.#stopped = true;
    this.#pausing = false;
    this.#resume.resolve();
  }

  /** Resolves after this number of further orders; one per shopper unless given. */
  async progress(orders = this.shoppers.length): Promise<void> {
    const goal = this.orderCount + orders;
    await until(() => this.orderCount >= goal, `${orders} more orders get through`, WAIT_MS_MAX);
  }

  /** Resolves after this number of further retries. */
  async refusals(calls: number): Promise<void> {
    const goal = this.retries + calls;
    await until(() => this.retries >= goal, `${calls} calls have to be retried`, WAIT_MS_MAX);
  }

  [Symbol.dispose](): void {
    for (const caller of this.callers) {
      caller[Symbol.dispose]();
    }
  }
}
