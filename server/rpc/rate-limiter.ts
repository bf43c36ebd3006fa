import { externalNetworkOf } from "../http/client-network.ts";

/** Addresses of one generation, of which two are remembered: some 10 MB. */
const GENERATION_MAX = 50_000;
const SECOND_MS = 1_000;
/** An address may save up what it has for this many seconds. */
const BURST_SECONDS = 2;

interface Budget {
  left: number;
  countedAt: number;
}

/**
 * How much each client of the outside may have in a second, as a token bucket. Of the addresses it remembers those asked about last, in two
 * generations: finding the oldest entry of a Map that loses its first ones takes longer the more it has lost, which a crowd of addresses
 * would make each call pay for.
 */
export class RateLimiter {
  readonly #perSecond: number;
  #young = new Map<string, Budget>();
  #old = new Map<string, Budget>();

  /** 0: no bound. */
  constructor(perSecond: number) {
    this.#perSecond = perSecond;
  }

  /** Takes one. False, and nothing taken, where there is none left. */
  take(address: string): boolean {
    const budget = this.#budgetOf(address);
    if (budget === undefined) {
      return true;
    }
    if (budget.left < 1) {
      return false;
    }
    budget.left -= 1;
    return true;
  }

  /** Whether there is one left. */
  has(address: string): boolean {
    const budget = this.#budgetOf(address);
    return budget === undefined || budget.left >= 1;
  }

  /** How many addresses are remembered. */
  get size(): number {
    return this.#young.size + this.#old.size;
  }

  #budgetOf(address: string): Budget | undefined {
    const key = this.#perSecond === 0 ? undefined : externalNetworkOf(address);
    if (key === undefined) {
      return undefined;
    }
    const now = performance.now();
    const most = this.#perSecond * BURST_SECONDS;
    const budget = this.#young.get(key) ?? this.#old.get(key) ?? { left: most, countedAt: now };
    budget.left = Math.min(most, budget.left + ((now - budget.countedAt) / SECOND_MS) * this.#perSecond);
    budget.countedAt = now;
    this.#remember(key, budget);
    return budget;
  }

  #remember(key: string, budget: Budget): void {
    if (this.#young.has(key)) return;
    this.#old.delete(key);
    if (this.#young.size === GENERATION_MAX) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(key, budget);
  }
}
