import type { ProductState } from "../../inventory/feed.ts";
import type { RedisConnection } from "../connection/client.ts";
import { isErrorReply } from "../connection/error-replies.ts";
import type { DamagedRecords } from "../damaged-records.ts";
import type { Keys } from "../keys.ts";
import { decodeDetails, decodeStates, detailsOf, list, ReplyReader } from "../reply.ts";
import { loadScript } from "../scripts.ts";

/** Products read in one call: about 4 ms of Redis's time. */
const PRODUCTS_PER_CALL_MAX = 500;
/** Damaged ledgers that are read again in one call. */
const REREAD_MAX = 100;

/** A page of a bucket's products. */
interface Page {
  /** Cursor of the next page; "0" after the last one. */
  readonly cursor: string;
  readonly ids: readonly string[];
  /** `undefined` if a record of one of them is damaged. */
  readonly states: readonly ProductState[] | undefined;
}

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
  async *products(bucket: number): AsyncGenerator<readonly ProductState[]> {
    const set = this.#keys.products(bucket);
    let cursor = "0";
    do {
      let page: Page;
      try {
        page = await this.#page(bucket, cursor);
      } catch (error) {
        this.#damagedRecords.foundForeignType("products", set, error);
        yield* this.#productsByKey(bucket);
        return;
      }
      cursor = page.cursor;
      if (page.ids.length > 0) {
        yield page.states ?? (await this.#states(bucket, page.ids));
      }
    } while (cursor !== "0");
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

  /** Finds the ledgers by their keys: slow, but complete. */
  async *#productsByKey(bucket: number): AsyncGenerator<readonly ProductState[]> {
    const { client } = this.#connection;
    const prefix = this.#keys.ledger("", bucket);
    let cursor = "0";
    do {
      const [next, found] = await client.scan(cursor, "MATCH", `${prefix}*`, "COUNT", PRODUCTS_PER_CALL_MAX);
      cursor = next;
      if (found.length > 0) {
        const ids = found.map((key) => key.slice(prefix.length));
        yield await this.#states(bucket, ids);
      }
    } while (cursor !== "0");
  }

  /** Reads products by their IDs. */
  async #states(bucket: number, ids: readonly string[]): Promise<readonly ProductState[]> {
    const states = await this.#tryStates(bucket, ids);
    if (!(states instanceof Error)) {
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

  /** Reads states by their IDs, or resolves with the error if a ledger is damaged. */
  async #tryStates(bucket: number, ids: readonly string[]): Promise<readonly ProductState[] | Error> {
    let reply: ReplyReader;
    try {
      reply = await this.#load(bucket, ["", ...ids]);
    } catch (error) {
      if (isWrongType(error)) {
        return error;
      }
      throw error;
    }
    const [, , ledgers] = [reply.text(), reply.items(), reply.text()];
    const texts = await this.#detailsTexts(bucket, ids);
    const details = ids.map((id, index) => {
      const text = texts[index] ?? null;
      return text === null
        ? undefined
        : this.#damagedRecords.decode("details", this.#keys.details(id, bucket), () => decodeDetails(text));
    });
    return decoded(() => decodeStates(ids, list(JSON.parse(ledgers)), details));
  }

  async #page(bucket: number, cursor: string): Promise<Page> {
    const reply = await this.#load(bucket, [cursor, PRODUCTS_PER_CALL_MAX]);
    const next = reply.text();
    const ids = reply.items() as readonly string[];
    const ledgers = reply.text();
    const texts = await this.#detailsTexts(bucket, ids);
    const states = decoded(() => {
      const details = list(JSON.parse(`[${texts.map((text) => text ?? "null").join(",")}]`));
      if (details.length !== ids.length) {
        throw new Error("a text of details is not one JSON value");
      }
      return decodeStates(
        ids,
        list(JSON.parse(ledgers)),
        details.map((value) => (value === null ? undefined : detailsOf(value))),
      );
    });
    return { cursor: next, ids, states: states instanceof Error ? undefined : states };
  }

  async #load(bucket: number, what: readonly (string | number)[]): Promise<ReplyReader> {
    const reply = await this.#connection.run(
      this.#script,
      [this.#keys.products(bucket)],
      [this.#keys.ledger("", bucket), ...what],
    );
    return new ReplyReader(reply);
  }

  /**
   * The texts of products' details; `null` where there is none. Read by a command instead of the script, which takes Redis a
   * fifth less time for a page. What changes between the two is also in the change stream.
   */
  async #detailsTexts(bucket: number, ids: readonly string[]): Promise<readonly (string | null)[]> {
    return ids.length === 0
      ? []
      : await this.#connection.client.mget(ids.map((id) => this.#keys.details(id, bucket)));
  }
}

/** The key has a foreign type. */
function isWrongType(error: unknown): error is Error {
  return isErrorReply(error) && error.message.startsWith("WRONGTYPE");
}

/** The result of `decode`, or its error. */
function decoded<T>(decode: () => T): T | Error {
  try {
    return decode();
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}
