import type { Redis } from "ioredis";
import type { Logger } from "pino";
import type { InventoryError } from "../../inventory/errors.ts";
import type { RedisInstruments } from "../instruments.ts";
import type { Keys } from "../keys.ts";
import type { Script } from "../scripts.ts";
import { type Prepare, RedisConnection } from "./client.ts";
import type { RedisEndpoint } from "./endpoint.ts";
import { checkLayout, checkServing } from "./requirements.ts";

/** Whether commands can be sent now. */
export interface Availability {
  readonly isReady: boolean;
  /** The error for a call if the outage has lasted so long that calls should not wait for its end. */
  readonly unavailability: InventoryError | undefined;
  /** Calls `then` once, when commands can be sent again. */
  onceReady(then: () => void): void;
}

/** The primaries that hold the buckets: one for all of them, or those of a Cluster. */
export interface Primaries {
  /** The bucket that stands for all buckets which one command may touch: bucket 0 on one primary, itself in a Cluster. */
  groupOf(bucket: number): number;
  /**
   * Sends commands of one group of buckets on the shared read connection. In a Cluster they are sent again, to the right
   * node, if a node rejects them because it does not serve the bucket, so they must be safe to repeat. Rejects with
   * `STORE_UNAVAILABLE`, after `RESPONSE_MS_MAX` at the latest.
   */
  send<T>(bucket: number, send: (client: Redis) => Promise<T>): Promise<T>;
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
   * Checks the layout of the data (`checkLayout`), and resolves with the ID of the data. `client` is connected to the
   * primary that is checked; in a Cluster the primary of bucket 0 is read instead, which has the layout.
   */
  checkLayout(client: Redis, expectedData?: string): Promise<string>;
  /** Resolves when reads are first served. Rejects with `RedisRequirementError`. */
  readonly firstReady: Promise<unknown>;
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

export interface PrimariesOptions {
  readonly endpoint: RedisEndpoint;
  readonly keys: Keys;
  readonly log: Logger;
  readonly instruments?: RedisInstruments;
}

/** The primaries of the endpoint. Connects on first use. */
export function openPrimaries(options: PrimariesOptions): Primaries {
  return new OnePrimary(options);
}

/** One primary, which holds every bucket. */
class OnePrimary implements Primaries {
  readonly #options: PrimariesOptions;
  #connection: RedisConnection | undefined;

  constructor(options: PrimariesOptions) {
    this.#options = options;
  }

  groupOf(): number {
    return 0;
  }

  send<T>(_bucket: number, send: (client: Redis) => Promise<T>): Promise<T> {
    return this.#reads.send(send);
  }

  run(
    _bucket: number,
    script: Script,
    keys: readonly string[],
    args: readonly (string | number)[],
  ): Promise<unknown> {
    return this.#reads.run(script, keys, args);
  }

  availability(): Availability {
    return this.#reads;
  }

  open(name: string, _bucket: number, prepare?: Prepare): RedisConnection {
    const { endpoint, log, instruments } = this.#options;
    return new RedisConnection(name, endpoint, log, instruments, async (client) => {
      await checkServing(client);
      await prepare?.(client);
    });
  }

  checkLayout(client: Redis, expectedData?: string): Promise<string> {
    return checkLayout(client, this.#options.keys, expectedData);
  }

  get firstReady(): Promise<unknown> {
    return this.#reads.firstReady;
  }

  get unreadyReason(): string | undefined {
    return this.#reads.unreadyReason;
  }

  close(): void {
    this.#connection?.close();
  }

  get #reads(): RedisConnection {
    this.#connection ??= this.open("reads", 0);
    return this.#connection;
  }
}
