import type { Redis } from "ioredis";
import { InventoryError } from "../inventory/errors.ts";
import type { InventoryStore } from "../inventory/store.ts";
import { Violations } from "../inventory/validation.ts";
import type { Keys } from "./keys.ts";
import { countIn } from "./plain-keys.ts";

/** Keys that Redis visits in one step of the scan: well below a millisecond of its time. */
const KEYS_PER_STEP = 500;

/**
 * What a plain key is.
 *
 * - `adopted`: the count of a product that had no ledger. In a dry run, one that would be adopted.
 * - `known`: the count of a product that has a ledger, so that the key is not read.
 * - `not-a-count`: the value is not a whole number from 0 to the int32 maximum.
 * - `not-an-id`: the name is not a product ID.
 */
export const PLAIN_KEY_KINDS = ["adopted", "known", "not-a-count", "not-an-id"] as const;
export type PlainKeyKind = (typeof PLAIN_KEY_KINDS)[number];

interface AdoptOptions {
  readonly client: Redis;
  readonly keys: Keys;
  /** Adopts the products. Absent: a dry run. */
  readonly store: InventoryStore | undefined;
  /** Only keys that match this pattern of SCAN. */
  readonly match: string;
  /** Called for each plain key. The scan may visit a key more than once. */
  readonly onKey: (key: string, kind: PlainKeyKind, value: string) => void;
  readonly signal: AbortSignal;
}

/**
 * Adopts the counts that the Go service keeps in plain keys, in bounded steps, while servers are running. May be
 * interrupted and repeated: a product that has a ledger is left as it is. The plain keys are not changed.
 */
export async function adoptPlainKeys(options: AdoptOptions): Promise<void> {
  const { client, keys, match, signal } = options;
  let cursor = "0";
  do {
    signal.throwIfAborted();
    const [next, found] = await client.scan(cursor, "MATCH", match, "COUNT", KEYS_PER_STEP, "TYPE", "string");
    cursor = next;
    const plain = found.filter((key) => keys.bucketIn(key) === undefined);
    if (plain.length > 0) {
      await adoptStep(plain, options);
    }
  } while (cursor !== "0");
}

async function adoptStep(
  names: readonly string[],
  { client, keys, store, onKey }: AdoptOptions,
): Promise<void> {
  const values = await client.mget([...names]);
  const kinds = await Promise.all(
    names.map(async (name, index): Promise<PlainKeyKind> => {
      if (!isId(name)) {
        return "not-an-id";
      }
      if (countIn(values[index] ?? "") === undefined) {
        return "not-a-count";
      }
      if ((await client.exists(keys.ledger(name))) === 1) {
        return "known";
      }
      // Reading a product adopts it.
      await store?.getLedger(name);
      return "adopted";
    }),
  );
  for (const [index, name] of names.entries()) {
    onKey(name, kinds[index] ?? "not-a-count", values[index] ?? "");
  }
}

function isId(name: string): boolean {
  const violations = new Violations();
  violations.id("product_id", name);
  try {
    violations.throwIfAny();
    return true;
  } catch (error) {
    if (error instanceof InventoryError) {
      return false;
    }
    throw error;
  }
}
