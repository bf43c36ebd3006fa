import assert from "node:assert/strict";
import type { Redis } from "ioredis";
import type { Keys } from "../../server/redis/keys.ts";
import { decodeReservation } from "../../server/redis/reservation-record.ts";
import { slotOfBucket } from "../support/redis-cluster.ts";

const KEYS_PER_SCAN = 1_000;

/** What a reservation holds and has sold of one product. */
interface Units {
  readonly held: number;
  readonly sold: number;
}

/** Reads the units that a product has reserved and sold. */
export type LedgerOf = (productId: string) => Promise<{ readonly reserved: number; readonly sold: number }>;

interface HoldRecord {
  readonly epoch: number;
  readonly print: string;
  readonly lines: readonly (readonly [productId: string, held: number, sold: number])[];
}

/** A reservation in one of the sets of a bucket. */
interface Member {
  readonly bucket: number;
  readonly id: string;
}

interface Records {
  /** By reservation ID. Without those of refused attempts alone. */
  readonly reservations: ReadonlyMap<string, string>;
  /** Holds of a reservation in all buckets. */
  readonly holds: ReadonlyMap<string, readonly HoldRecord[]>;
}

const NONE: Units = { held: 0, sold: 0 };

/** A primary, with a connection to it. */
interface Primary {
  readonly direct: Redis;
}

/** The primary of each slot: of a Cluster, or the only one there is. */
interface Nodes {
  primaryOf(slot: number): Promise<Primary>;
}

/** Records and holds of reservations across buckets, read from the primaries that have them. */
export class ClusterState {
  readonly #cluster: Nodes;
  readonly #keys: Keys;
  #nodes: readonly Primary[] = [];
  #refreshed: Promise<void> | undefined;

  constructor(cluster: Nodes, keys: Keys) {
    this.#cluster = cluster;
    this.#keys = keys;
  }

  /** Whether no effect is owed, and no hold belongs to an attempt that was not decided. */
  async isSettled(): Promise<boolean> {
    const { owed, undecided } = await this.unfinished();
    if (owed.length > 0) return false;
    const decided = await Promise.all(undecided.map(({ bucket, id }) => this.#isDecided(bucket, id)));
    return decided.every(Boolean);
  }

  /** What a server has yet to settle or to repair: the members of the sets, decided or not. */
  async unfinished(): Promise<{ readonly owed: readonly Member[]; readonly undecided: readonly Member[] }> {
    const [owed, undecided] = await Promise.all([this.#membersOf("owed"), this.#membersOf("undecided")]);
    return { owed, undecided };
  }

  /**
   * Checks, at rest, that the holds of all buckets add up to the record of each reservation, and that the ledger of each
   * product adds up to its holds.
   */
  async check(ledgerOf: LedgerOf): Promise<void> {
    const { reservations, holds } = await this.#records();
    const byProduct = new Map<string, Units>();
    for (const id of new Set([...reservations.keys(), ...holds.keys()])) {
      const found = new Map<string, Units>();
      for (const [productId, held, sold] of (holds.get(id) ?? []).flatMap(({ lines }) => lines)) {
        add(found, productId, { held, sold });
        add(byProduct, productId, { held, sold });
      }
      const expected = expectedUnits(id, reservations.get(id));
      for (const productId of new Set([...found.keys(), ...expected.keys()])) {
        assert.deepEqual(
          found.get(productId) ?? NONE,
          expected.get(productId) ?? NONE,
          `reservation ${id}, product ${productId}: its holds and its record ${reservations.get(id)}`,
        );
      }
    }
    for (const productId of await this.#productIds()) {
      const { reserved: held, sold } = await ledgerOf(productId);
      assert.deepEqual({ held, sold }, byProduct.get(productId) ?? NONE, `product ${productId}: its holds`);
    }
  }

  async #isDecided(bucket: number, id: string): Promise<boolean> {
    const [client, home] = [await this.#clientOf(bucket), await this.#clientOf(this.#keys.bucketOf(id))];
    const hold = await client.get(this.#keys.hold(bucket, id));
    return hold === null || isDecided(await home.get(this.#keys.reservation(id)), JSON.parse(hold));
  }

  async #membersOf(set: "owed" | "undecided"): Promise<Member[]> {
    const buckets = Array.from({ length: this.#keys.buckets }, (_, bucket) => bucket);
    const members = await Promise.all(
      buckets.map(async (bucket) => {
        const client = await this.#clientOf(bucket);
        const ids = await client.zrange(this.#keys[set](bucket), "0", "-1");
        return ids.map((id) => ({ bucket, id }));
      }),
    );
    return members.flat();
  }

  async #records(): Promise<Records> {
    const reservations = new Map<string, string>();
    const holds = new Map<string, HoldRecord[]>();
    for (const [id, text] of await this.#textsOf("r:")) {
      if (!text.startsWith("refused ")) reservations.set(id, text);
    }
    for (const [id, text] of await this.#textsOf("x:")) {
      holds.set(id, [...(holds.get(id) ?? []), JSON.parse(text) as HoldRecord]);
    }
    return { reservations, holds };
  }

  /** The strings under all keys of a kind, with the part of the key after the kind. */
  async #textsOf(kind: string): Promise<[id: string, text: string][]> {
    const texts = await Promise.all(
      (await this.#keysOf(kind)).map(async ([key, id]): Promise<[string, string] | undefined> => {
        const text = await (await this.#clientOf(this.#keys.bucketIn(key) ?? 0)).get(key);
        return text === null ? undefined : [id, text];
      }),
    );
    return texts.filter((text) => text !== undefined);
  }

  async #productIds(): Promise<string[]> {
    return (await this.#keysOf("p:")).map(([, id]) => id);
  }

  /** Keys of a kind on all primaries, with the part after the kind. */
  async #keysOf(kind: string): Promise<[key: string, id: string][]> {
    await this.refresh();
    const found: [string, string][] = [];
    for (const { direct } of new Set(this.#nodes)) {
      let cursor = "0";
      do {
        const [next, keys] = await direct.scan(cursor, "MATCH", `{b*}:${kind}*`, "COUNT", KEYS_PER_SCAN);
        found.push(
          ...keys.map((key): [string, string] => [key, key.slice(key.indexOf(`:${kind}`) + 1 + kind.length)]),
        );
        cursor = next;
      } while (cursor !== "0");
    }
    return [...new Map(found)];
  }

  /** Reads which node serves each bucket, after slots have moved. */
  async refresh(): Promise<void> {
    const buckets = Array.from({ length: this.#keys.buckets }, (_, bucket) => bucket);
    this.#nodes = await Promise.all(buckets.map((bucket) => this.#cluster.primaryOf(slotOfBucket(bucket))));
  }

  async #clientOf(bucket: number): Promise<Redis> {
    this.#refreshed ??= this.refresh();
    await this.#refreshed;
    const node = this.#nodes[bucket];
    if (node === undefined) throw new RangeError(`There is no bucket ${bucket}`);
    return node.direct;
  }
}

function isDecided(record: string | null, { epoch, print }: HoldRecord): boolean {
  if (record === null || record.startsWith("refused ")) return false;
  const { epoch: decided, attempt } = JSON.parse(record) as { epoch: number; attempt: string };
  return epoch === decided && print === attempt;
}

/** What the record of a reservation says that it holds and has sold, by product. */
function expectedUnits(id: string, record: string | undefined): Map<string, Units> {
  const expected = new Map<string, Units>();
  if (record === undefined) return expected;
  const { state, lines, committedLines } = decodeReservation(id, record);
  const sold = committedLines.length > 0 ? committedLines : lines;
  for (const { productId, quantity } of state === "active" ? lines : state === "committed" ? sold : []) {
    add(expected, productId, state === "active" ? { held: quantity, sold: 0 } : { held: 0, sold: quantity });
  }
  return expected;
}

function add(units: Map<string, Units>, productId: string, more: Units): void {
  const { held, sold } = units.get(productId) ?? NONE;
  units.set(productId, { held: held + more.held, sold: sold + more.sold });
}
