import { RESERVATION_STATES } from "../../inventory/reservation.ts";
import type { LedgerNumbers } from "./records.ts";

/** What is counted at the source and at the target, in the order of the report. */
export const TALLIED = [
  "products",
  "units declared",
  "units adjusted",
  "units sold",
  "units reserved",
  "units of safety stock",
  "details",
  "changes in histories",
  ...RESERVATION_STATES.map((state) => `reservations ${state}` as const),
  "units held by reservations",
  "deadlines",
  "operations",
  "changes named by references",
  "collections",
] as const;
export type Tallied = (typeof TALLIED)[number];

/** Counts, and sums of units that may exceed 2^53. */
export class Tally {
  readonly #counts = new Map<Tallied, bigint>();

  add(what: Tallied, count = 1): void {
    this.#counts.set(what, this.get(what) + BigInt(count));
  }

  addLedger({ declared, adjusted, sold, reserved, safety }: LedgerNumbers): void {
    this.add("products");
    this.add("units declared", declared);
    this.add("units adjusted", adjusted);
    this.add("units sold", sold);
    this.add("units reserved", reserved);
    this.add("units of safety stock", safety);
  }

  get(what: Tallied): bigint {
    return this.#counts.get(what) ?? 0n;
  }
}

/** Findings of which the first are kept and all are counted. */
export class Findings {
  readonly kept: string[] = [];
  #count = 0;
  static readonly #KEPT_MAX = 100;

  add(text: string): void {
    this.#count += 1;
    if (this.kept.length < Findings.#KEPT_MAX) {
      this.kept.push(text);
    }
  }

  get count(): number {
    return this.#count;
  }
}

/** Compares the units that active reservations hold with the ledgers. Keeps only the products where they differ so far. */
export class HeldUnits {
  readonly #difference = new Map<string, number>();

  held(productId: string, quantity: number): void {
    this.#add(productId, quantity);
  }

  reserved(productId: string, quantity: number): void {
    this.#add(productId, -quantity);
  }

  /** Adds a finding for each product whose reserved units are not those that its reservations hold. */
  report(findings: Findings): void {
    for (const [productId, difference] of this.#difference) {
      const comparison = difference > 0 ? "fewer" : "more";
      findings.add(
        `product ${JSON.stringify(productId)}: the ledger has reserved ${Math.abs(difference)} units ${comparison} than its active reservations hold`,
      );
    }
  }

  #add(productId: string, difference: number): void {
    const sum = (this.#difference.get(productId) ?? 0) + difference;
    if (sum === 0) {
      this.#difference.delete(productId);
    } else {
      this.#difference.set(productId, sum);
    }
  }
}

/** Runs `run` for the items, `atOnce` at a time. */
export async function inGroups<Item>(
  items: readonly Item[],
  atOnce: number,
  run: (item: Item) => Promise<void>,
): Promise<void> {
  for (let n = 0; n < items.length; n += atOnce) {
    await Promise.all(items.slice(n, n + atOnce).map(run));
  }
}
