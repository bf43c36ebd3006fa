import type { ProductState } from "../../inventory/feed.ts";
import type { RedisConnection } from "../connection/client.ts";
import { isErrorReply, refusalOf } from "../connection/error-replies.ts";
import type { DamagedRecords } from "../damaged-records.ts";
import type { Keys } from "../keys.ts";
import { decodeDetails, decodeStates, ReplyReader } from "../reply.ts";
import { loadScript } from "../scripts.ts";

/** Products read in one call: about 3 ms of Redis's time. */
const PRODUCTS_PER_CALL_MAX = 500;
/** Damaged ledgers that are read again in one call. */
const REREAD_MAX = 100;

/** Reads the state of every product. Damaged records are reported and left out. */
export class SnapshotReader {
  readonly #connection: RedisConnection;
  readonly #keys: Keys;
  readonly #damagedRecords: DamagedRecords;
  readonly #script = loadScript();
  /** Products whose ledger was damaged when it was last read, by bucket. */
  readonly #damaged = new Map<string, number>();

  constructor(connection: RedisConnection, keys: Keys, damagedRecords: DamagedRecords) {
    this.#connection = connection;
    this.#keys = keys;
    this.#damagedRecords = damagedRecords;
  }

  /** The products of a bucket, in parts. */
  async *products(bucket: number): AsyncGenerator<ProductState[]> {
    for await (const ids of this.#ids(bucket)) {
      yield await this.#states(bucket, ids);
    }
  }

  /** Reads products again whose ledger was damaged. Resolves with those that can be read now. */
  async reread(): Promise<ProductState[]> {
    const states: ProductState[] = [];
    for (const [id, bucket] of [...this.#damaged].slice(0, REREAD_MAX)) {
      this.#damaged.delete(id);
      const [state] = await this.#states(bucket, [id]);
      if (state !== undefined) {
        this.#damagedRecords.repaired("ledger", this.#keys.ledger(id, bucket));
        states.push(state);
      }
    }
    return states;
  }

  async *#ids(bucket: number): AsyncGenerator<string[]> {
    const { client } = this.#connection;
    const products = this.#keys.products(bucket);
    try {
      yield* pages((cursor) => client.sscan(products, cursor, "COUNT", PRODUCTS_PER_CALL_MAX));
    } catch (error) {
      this.#damagedRecords.foundForeignType("products", products, error);
      // Finds the ledgers by their keys instead: slow, but complete.
      const prefix = this.#keys.ledger("", bucket);
      for await (const found of pages((cursor) =>
        client.scan(cursor, "MATCH", `${prefix}*`, "COUNT", PRODUCTS_PER_CALL_MAX),
      )) {
        yield found.map((key) => key.slice(prefix.length));
      }
    }
  }

  async #states(bucket: number, ids: readonly string[]): Promise<ProductState[]> {
    const states = await this.#tryStates(bucket, ids);
    if (Array.isArray(states)) {
      return states;
    }
    const [id] = ids;
    if (ids.length === 1 && id !== undefined) {
      this.#damagedRecords.found("ledger", this.#keys.ledger(id, bucket), states.message);
      this.#damaged.set(id, bucket);
      return [];
    }
    // One of them is damaged. Halving finds it with few calls.
    const middle = Math.ceil(ids.length / 2);
    return [
      ...(await this.#states(bucket, ids.slice(0, middle))),
      ...(await this.#states(bucket, ids.slice(middle))),
    ];
  }

  /**
   * Reads states, or resolves with the error if one of them is damaged. Reads the details after the ledgers: details newer
   * than their ledger are repeated by the stream; details older than their ledger would stay.
   */
  async #tryStates(bucket: number, ids: readonly string[]): Promise<ProductState[] | Error> {
    let ledgers: unknown;
    try {
      const ledgerKeys = ids.map((id) => this.#keys.ledger(id, bucket));
      ledgers = await this.#connection.run(this.#script, ledgerKeys, []);
    } catch (error) {
      if (isErrorReply(error) && refusalOf(error.message) === undefined) {
        return error;
      }
      throw error;
    }
    const detailsKeys = ids.map((id) => this.#keys.details(id, bucket));
    const details = await this.#connection.client.mget(detailsKeys);
    try {
      return decodeStates(ids, new ReplyReader([ledgers]).text(), (index) => {
        const text = details[index];
        const key = detailsKeys[index] ?? "";
        return typeof text === "string"
          ? this.#damagedRecords.decode("details", key, () => decodeDetails(text))
          : undefined;
      });
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error));
    }
  }
}

/** The elements of a SCAN, in parts that are not empty. */
async function* pages(scan: (cursor: string) => Promise<[string, string[]]>): AsyncGenerator<string[]> {
  let cursor = "0";
  do {
    const [next, found] = await scan(cursor);
    cursor = next;
    if (found.length > 0) {
      yield found;
    }
  } while (cursor !== "0");
}
