import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import type { TestContext } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { InventoryError } from "../../server/inventory/errors.ts";
import type { InventoryStore } from "../../server/inventory/store.ts";
import { until } from "../support/until.ts";
import { ask } from "./calls.ts";
import type { Ask, Round } from "./clients.ts";
import { judge, type Rules } from "./history.ts";
import { Auditor, type AuditRules } from "./invariants.ts";

const { FC_SEED, CHAOS_ROUNDS = "1" } = process.env;

/** Factor by which the random tests run longer than in `npm test`. */
export const ROUNDS = Number(CHAOS_ROUNDS);

/** Interval between sweeps, ms. */
const SWEEP_MS = 5;
/** Attempts of an audit during which the store is briefly unavailable. */
const ATTEMPTS_MAX = 5;

export const STRICT: Rules = { mayRepeat: false };
export const REPEATING: Rules = { mayRepeat: true };

/** The seed in FC_SEED, or a new one for each test, which is printed. */
export function seedOf(t: TestContext): number {
  const seed = FC_SEED === undefined ? randomInt(2 ** 31) : Number(FC_SEED);
  t.diagnostic(`FC_SEED=${seed}`);
  return seed;
}

export function askOf(store: InventoryStore): Ask {
  return async (call) => {
    const result = await ask(store, call);
    return /"code":"(STORE_UNAVAILABLE|OVERLOADED)"/.test(result) ? undefined : result;
  };
}

/** Runs expiry sweeps while the body runs. */
export async function withSweeper(store: InventoryStore, body: () => Promise<void>): Promise<void> {
  const ended = new AbortController();
  const sweeping = (async () => {
    while (!ended.signal.aborted) {
      await store.reservations.expireDue(50).catch((error: unknown) => {
        assert.ok(error instanceof InventoryError, String(error));
      });
      await pause(SWEEP_MS);
    }
  })();
  try {
    await body();
  } finally {
    ended.abort();
    await sweeping;
  }
}

/** Statistics of the checked rounds. */
export class Tally {
  calls = 0;
  lost = 0;
  steps = 0;
  readonly #clients: number;
  readonly faults = new Map<string, number>();

  constructor(clients: number) {
    this.#clients = clients;
  }

  /** Counts a round, and throws if its history is not linearizable. */
  judge(round: Round, rules: Rules): void {
    const verdict = judge(round.history, rules);
    this.calls += round.calls;
    this.lost += round.lost;
    this.steps += verdict.steps;
    assert.equal(verdict.kind, "explained", verdict.story);
  }

  fault(name: string, times: number): void {
    this.faults.set(name, (this.faults.get(name) ?? 0) + times);
  }

  toString(): string {
    const faults = [...this.faults].map(([name, count]) => `${count} × ${name}`).join(", ");
    const total = [...this.faults.values()].reduce((sum, count) => sum + count, 0);
    return `${this.calls} calls of ${this.#clients} clients at once, ${this.lost} results lost, ${total} faults survived${faults && `: ${faults}`}; explained in ${this.steps} steps`;
  }
}

/** Checks every rule of the products and reservations of a finished round. */
export async function audit(store: InventoryStore, round: Round, rules: AuditRules = {}): Promise<void> {
  const products = round.shops.flatMap((shop) => shop.productIds);
  const reservations = round.shops.flatMap((shop) => shop.reservationIds);
  const auditor = new Auditor(store, products, reservations, rules);
  for (let attempt = 1; ; attempt++) {
    try {
      await auditor.check();
      return;
    } catch (error) {
      const isAway = error instanceof InventoryError && error.code === "STORE_UNAVAILABLE";
      if (!isAway || attempt === ATTEMPTS_MAX) {
        throw error;
      }
      await until(async () => (await store.unreadyReason()) === undefined, "the store is ready again");
    }
  }
}
