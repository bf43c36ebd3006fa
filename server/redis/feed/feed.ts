import type { Logger } from "pino";
import { type ChangeFeed, type FeedListener, ONE_PARTITION } from "../../inventory/feed.ts";
import { RedisConnection } from "../connection/client.ts";
import type { RedisEndpoint } from "../connection/endpoint.ts";
import { checkLayout, checkServing } from "../connection/requirements.ts";
import { DamagedRecords } from "../damaged-records.ts";
import type { RedisInstruments } from "../instruments.ts";
import type { Keys } from "../keys.ts";
import { Follower } from "./follower.ts";
import { LoadLimit } from "./load-limit.ts";

/**
 * On one primary, one read has all streams, and round trips of up to 400 ms leave no gap between the proofs that it is
 * current.
 */
const BLOCK_MS = 100;
const CHECK_MS = 500;
/** Buckets loaded concurrently, so that Redis reads the next products while this server decodes the last ones. */
const LOADS_MAX = 6;

interface RedisFeedOptions {
  readonly endpoint: RedisEndpoint;
  readonly keys: Keys;
  readonly log: Logger;
  readonly damagedRecords?: DamagedRecords;
  readonly instruments?: RedisInstruments;
}

/** The change streams of all buckets. On one primary they are one partition, read together. */
export class RedisFeed implements ChangeFeed {
  readonly #options: RedisFeedOptions;
  readonly #damagedRecords: DamagedRecords;
  #followers: readonly Follower[] = [];

  constructor(options: RedisFeedOptions) {
    this.#options = options;
    this.#damagedRecords =
      options.damagedRecords ?? new DamagedRecords(options.log, options.instruments?.metrics);
  }

  start(listener: FeedListener): void {
    const { endpoint, keys, log, instruments } = this.#options;
    listener.onStart(ONE_PARTITION);
    const follower = new Follower(
      {
        connection: new RedisConnection("feed", endpoint, log, instruments, checkServing),
        partition: 0,
        buckets: Array.from({ length: keys.buckets }, (_, bucket) => bucket),
        blockMs: BLOCK_MS,
        checkMs: CHECK_MS,
        readDataId: (client) => checkLayout(client, keys),
        keys,
        log,
        damagedRecords: this.#damagedRecords,
        loads: new LoadLimit(LOADS_MAX),
      },
      listener,
    );
    this.#followers = [follower];
  }

  async stop(): Promise<void> {
    await Promise.all(this.#followers.map((follower) => follower.stop()));
  }
}
