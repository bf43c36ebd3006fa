import { outsideNetworkOf } from "./client-network.ts";

/** Addresses remembered; the one that was asked about longest ago goes first. Some 10 MB. */
const ADDRESSES_MAX = 100_000;
const SECOND_MS = 1_000;
/** An address may save up what it has for this many seconds. */
const BURST_SECONDS = 2;

interface Budget {
  left: number;
  countedAt: number;
}

/** How much each client of the outside may have in a second, as a token bucket. */
export class AddressBudget {
  readonly #perSecond: number;
  readonly #budgets = new Map<string, Budget>();

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
    return this.#budgets.size;
  }

  #budgetOf(address: string): Budget | undefined {
    const key = this.#perSecond === 0 ? undefined : outsideNetworkOf(address);
    if (key === undefined) {
      return undefined;
    }
    const now = performance.now();
    const most = this.#perSecond * BURST_SECONDS;
    const budget = this.#budgets.get(key) ?? { left: most, countedAt: now };
    budget.left = Math.min(most, budget.left + ((now - budget.countedAt) / SECOND_MS) * this.#perSecond);
    budget.countedAt = now;
    this.#budgets.delete(key);
    this.#budgets.set(key, budget);
    if (this.#budgets.size > ADDRESSES_MAX) {
      const [oldest = ""] = this.#budgets.keys();
      this.#budgets.delete(oldest);
    }
    return budget;
  }
}
