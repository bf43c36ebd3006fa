import { QUANTITY_MAX } from "../inventory/ledger.ts";
import type { Primaries } from "./connection/primaries.ts";
import type { Keys } from "./keys.ts";
import type { Mutations } from "./mutations/mutations.ts";
import type { ReplyReader } from "./reply.ts";

/**
 * Adopts the counts that the Go service keeps in plain keys. A plain key is in a slot of its own, so it is read apart from
 * the script that creates the ledger: a count that the Go service writes in between is not adopted.
 */
export class PlainKeys {
  readonly #keys: Keys;
  readonly #primaries: Primaries;
  readonly #mutations: Mutations;

  constructor(keys: Keys, primaries: Primaries, mutations: Mutations) {
    this.#keys = keys;
    this.#primaries = primaries;
    this.#mutations = mutations;
  }

  /** The count in the plain key of a product. `undefined` if the key is absent or does not hold a count. */
  async count(productId: string): Promise<number | undefined> {
    const key = this.#keys.plain(productId);
    const text = await this.#primaries.sendForKey(key, (client) =>
      client.get(key).catch((error: unknown) => {
        if (error instanceof Error && error.message.startsWith("WRONGTYPE")) {
          return null;
        }
        throw error;
      }),
    );
    return text === null ? undefined : countIn(text);
  }

  /**
   * Adopts a product that has no ledger. Resolves with its ledger, also if it has one by now, or with `undefined` if its
   * plain key does not hold a count.
   */
  async adopt(productId: string): Promise<ReplyReader | undefined> {
    const count = await this.count(productId);
    if (count === undefined) {
      return undefined;
    }
    const reply = await this.#mutations.run({
      name: "adopt_product",
      keys: this.#keys.creationKeys(productId),
      args: [productId, count],
      products: 1,
      isIdempotent: true,
    });
    reply.text();
    return reply;
  }
}

/** The count that the value of a plain key holds. `undefined` unless it is a whole number from 0 to the int32 maximum. */
export function countIn(value: string): number | undefined {
  const count = Number(value);
  return /^\d{1,10}$/.test(value) && count <= QUANTITY_MAX ? count : undefined;
}
