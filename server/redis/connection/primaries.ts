import type { Redis } from "ioredis";
import type { InventoryError } from "../../inventory/errors.ts";
import type { Script } from "../scripts.ts";
import type { Prepare, RedisConnection } from "./client.ts";
import type { Layout } from "./requirements.ts";

/** Whether commands can be sent now. */
export interface Availability {
  readonly isReady: boolean;
  /** The error for a call if the outage has lasted so long that calls should not wait for its end. */
  readonly unavailability: InventoryError | undefined;
  /** Calls `then` once, when commands can be sent again. */
  onceReady(then: () => void): void;
}

/** Confirms that a primary was not replaced by one of its replicas. */
export interface PrimaryConfirmation {
  /** Who confirms it, as the subject of a sentence. */
  readonly by: string;
  /** Whether the node that `client` is connected to is still a primary. */
  confirms(client: Redis): Promise<boolean>;
}

/** The primaries that hold the buckets: one for all of them, or those of a Cluster. */
export interface Primaries {
  /** Whether one command may touch all buckets: on one primary. */
  readonly isOne: boolean;
  /** The bucket that stands for all buckets which one command may touch: bucket 0 on one primary, itself in a Cluster. */
  groupOf(bucket: number): number;
  /**
   * Sends commands of one group of buckets on the shared read connection. In a Cluster they are sent again, to the right
   * node, if a node rejects them because it does not serve the bucket, so they must be safe to repeat. Rejects with
   * `STORE_UNAVAILABLE`, after `RESPONSE_MS_MAX` at the latest.
   */
  send<T>(bucket: number, send: (client: Redis) => Promise<T>): Promise<T>;
  /** As `send`, for commands on a key that belongs to no bucket. */
  sendForKey<T>(key: string, send: (client: Redis) => Promise<T>): Promise<T>;
  /** Runs a script that only reads, as `send` does. Rejects with the error of ioredis; has no timeout of its own on one primary. */
  run(
    bucket: number,
    script: Script,
    keys: readonly string[],
    args: readonly (string | number)[],
  ): Promise<unknown>;
  /** Whether `send` and `run` can serve a bucket. */
  availability(bucket: number): Availability;
  /**
   * Opens a connection to the primary of a bucket, for blocking commands, long replies or WAIT. It reconnects, and follows
   * the bucket to another primary. `prepare` runs on each new connection, after the check that the node serves the bucket.
   */
  open(name: string, bucket: number, prepare?: Prepare): RedisConnection;
  /**
   * Reads and checks the layout of the data, as `checkLayout` in requirements.ts. `client` is connected to the primary that
   * is checked; in a Cluster the primary of bucket 0 is read instead, which has the layout.
   */
  checkLayout(client: Redis, expectedData?: string): Promise<Layout>;
  /** Records that every bucket has its marker, at the primary that `checkLayout` reads. */
  recordMarkers(client: Redis): Promise<void>;
  /** Resolves when reads are first served. Rejects with `RedisRequirementError`. */
  readonly firstReady: Promise<unknown>;
  /** Who confirms that a primary was not replaced. `undefined` if nothing fails over automatically. */
  readonly confirmation: PrimaryConfirmation | undefined;
  /** Why no bucket can be read, or `undefined`. */
  readonly unreadyReason: string | undefined;
  close(): void;
}

/** Items by the command that can carry them: the key is a bucket to send it by. */
export function groupByCommand<Item>(
  primaries: Pick<Primaries, "groupOf">,
  items: readonly Item[],
  bucketOf: (item: Item) => number,
): ReadonlyMap<number, Item[]> {
  return Map.groupBy(items, (item) => primaries.groupOf(bucketOf(item)));
}

/**
 * Calls `send` for the items of each command, at the same time, and resolves with the results in the order of the items.
 * `send` resolves with one result per item.
 */
export async function sendByCommand<Item, Result>(
  primaries: Primaries,
  items: readonly Item[],
  bucketOf: (item: Item) => number,
  send: (client: Redis, items: readonly Item[]) => Promise<readonly Result[]>,
): Promise<Result[]> {
  const positions = groupByCommand(primaries, [...items.keys()], (index) => bucketOf(items[index] as Item));
  const results: Result[] = [];
  await Promise.all(
    [...positions].map(async ([bucket, indexes]) => {
      const found = await primaries.send(bucket, (client) =>
        send(
          client,
          indexes.map((index) => items[index] as Item),
        ),
      );
      for (const [position, index] of indexes.entries()) {
        results[index] = found[position] as Result;
      }
    }),
  );
  return results;
}
