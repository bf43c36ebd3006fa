import type { Redis } from "ioredis";
import type { Logger } from "pino";
import type { ChangeFeed, FeedListener, FeedPartitions } from "../../inventory/feed.ts";
import type { RedisEndpoint } from "../connection/endpoint.ts";
import { openPrimaries } from "../connection/open-primaries.ts";
import type { Primaries } from "../connection/primaries.ts";
import { DamagedRecords } from "../damaged-records.ts";
import type { RedisInstruments } from "../instruments.ts";
import type { Keys } from "../keys.ts";
import { Follower } from "./follower.ts";
import { LoadLimit } from "./load-limit.ts";
import { LoadLog } from "./load-log.ts";

/**
 * One connection reads all streams. Round trips of up to 400 ms leave no gap between the proofs that they are current.
 */
const TOGETHER = { blockMs: 100, checkMs: 500 };
/**
 * A connection per bucket: with 64 buckets, an idle server sends about 160 reads a second and 130 commands to check them.
 * Round trips of up to 300 ms leave no gap between the proofs.
 */
const APART = { blockMs: 400, checkMs: 2_000 };
/** Buckets loaded concurrently, so that Redis reads the next products while this server decodes the last ones. */
const LOADS_MAX = 6;

interface RedisFeedOptions {
  readonly endpoint: RedisEndpoint;
  readonly keys: Keys;
  readonly log: Logger;
  readonly damagedRecords?: DamagedRecords;
  readonly instruments?: RedisInstruments;
}

/**
 * The change streams of all buckets. Streams that one command can read are one partition: all streams on one primary, and
 * those of one bucket in a Cluster, where a connection per bucket follows the bucket's primary.
 */
export class RedisFeed implements ChangeFeed {
  readonly #options: RedisFeedOptions;
  readonly #damagedRecords: DamagedRecords;
  readonly #primaries: Primaries;
  /** The buckets of each partition. */
  readonly #groups: readonly (readonly number[])[];
  readonly #partitions: FeedPartitions;
  #followers: readonly Follower[] = [];

  constructor(options: RedisFeedOptions) {
    const { keys, log, instruments } = options;
    this.#options = options;
    this.#damagedRecords = options.damagedRecords ?? new DamagedRecords(log, instruments?.metrics);
    this.#primaries = openPrimaries(options);
    const buckets = Array.from({ length: keys.buckets }, (_, bucket) => bucket);
    this.#groups = [...Map.groupBy(buckets, (bucket) => this.#primaries.groupOf(bucket)).values()];
    const partitionOf = new Map(
      this.#groups.flatMap((group, partition) => group.map((bucket) => [bucket, partition] as const)),
    );
    this.#partitions = {
      count: this.#groups.length,
      of: this.#isTogether ? () => 0 : (productId) => partitionOf.get(keys.bucketOf(productId)) ?? 0,
    };
  }

  start(listener: FeedListener): void {
    const { keys, log } = this.#options;
    listener.onStart(this.#partitions);
    const loads = new LoadLimit(LOADS_MAX);
    const loadLog = new LoadLog(this.#partitions.count, log);
    this.#followers = this.#groups.map(
      (buckets, partition) =>
        new Follower(
          {
            connection: this.#primaries.open("feed", buckets[0] ?? 0),
            partition,
            buckets,
            ...(this.#isTogether ? TOGETHER : APART),
            readDataId: (client) => this.#readDataId(client, buckets),
            keys,
            log,
            damagedRecords: this.#damagedRecords,
            loads,
            loadLog,
          },
          listener,
        ),
    );
  }

  async stop(): Promise<void> {
    await Promise.all(this.#followers.map((follower) => follower.stop()));
    this.#primaries.close();
  }

  get #isTogether(): boolean {
    return this.#groups.length === 1;
  }

  /** The layout is in one bucket. A partition of another one is read also while that is unavailable, so it has a marker. */
  async #readDataId(client: Redis, buckets: readonly number[]): Promise<string> {
    if (this.#isTogether) {
      return (await this.#primaries.checkLayout(client)).dataId;
    }
    const marker = this.#options.keys.marker(buckets[0] ?? 0);
    const dataId = await client.hget(marker, "data");
    if (dataId === null) {
      throw new Error(`${marker} does not exist: this bucket has no data, or was not opened for writes yet`);
    }
    return dataId;
  }
}
