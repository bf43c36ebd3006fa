import type { Message } from "kafkajs";
import { productMessage } from "./platform.ts";

/** The state of a product that its newest events define. */
export interface Told {
  readonly declared: number;
  readonly declareTimeMicros: number;
  readonly name: string;
  readonly deleted: boolean;
}

/** A seller that tracks the state that its events define, whatever the order of delivery. */
export class Seller {
  readonly #random: (below: number) => number;
  readonly #productIds: readonly string[];
  readonly #told = new Map<string, Told>();
  /** Time of the next event, µs since 1970. */
  #clock: number;

  constructor(productIds: readonly string[], random: (below: number) => number, startMs: number) {
    this.#productIds = productIds;
    this.#random = random;
    this.#clock = startMs * 1_000;
  }

  get told(): ReadonlyMap<string, Told> {
    return this.#told;
  }

  /** The next event of a random product: usually a count, sometimes details only, occasionally a deletion. */
  next(): Message {
    this.#clock += 1 + this.#random(3);
    const id = this.#productIds[this.#random(this.#productIds.length)] ?? "";
    const before = this.#told.get(id);
    const updatedAt = rfc3339(this.#clock);
    const kind = this.#random(20);
    if (before !== undefined && kind === 0) {
      this.#told.set(id, { ...before, deleted: true });
      return productMessage("Delete", { id, updatedAt });
    }
    const name = `name ${this.#clock}`;
    const details = { name, description: "", price: this.#random(10_000) / 100 };
    if (before !== undefined && kind < 5) {
      this.#told.set(id, { ...before, name, deleted: false });
      return productMessage("Update", { id, updatedAt, ...details });
    }
    const inventory = 10_000 + this.#random(1_000);
    this.#told.set(id, { declared: inventory, declareTimeMicros: this.#clock, name, deleted: false });
    return productMessage(before === undefined ? "Create" : "Update", {
      id,
      updatedAt,
      ...details,
      inventory,
    });
  }
}

/** With microseconds, which `Date` does not have. */
function rfc3339(micros: number): string {
  const seconds = Math.floor(micros / 1_000_000);
  const fraction = String(micros % 1_000_000).padStart(6, "0");
  return `${new Date(seconds * 1_000).toISOString().slice(0, 19)}.${fraction}Z`;
}
