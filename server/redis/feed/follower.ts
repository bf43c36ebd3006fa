import type { Redis } from "ioredis";
import type { Logger } from "pino";
import type { FeedListener } from "../../inventory/feed.ts";
import type { RedisConnection } from "../connection/client.ts";
import type { DamagedRecords } from "../damaged-records.ts";
import type { Keys } from "../keys.ts";
import { decodeCollections } from "../reply.ts";
import type { LoadLimit } from "./load-limit.ts";
import type { LoadLog } from "./load-log.ts";
import { decodeNewest } from "./newest-changes.ts";
import { SnapshotReader } from "./snapshot.ts";
import { type Continuity, type StreamEntry, StreamPositions } from "./stream-positions.ts";

/** Maximum entries of one bucket in one XREAD. */
const CHANGES_PER_READ_MAX = 500;
/** Delay before the next attempt after an error. */
const RETRY_MS = 100;
/** Time from the start after which a partition that could not be loaded is reported as unavailable. */
const UNAVAILABLE_AFTER_MS = 5_000;
/** The bucket whose tag the collections have. */
const BUCKET_OF_COLLECTIONS = 0;

/** The buckets whose streams one connection can read together, and how. */
export interface FollowerOptions {
  /** Its own: commands behind a blocking read wait for it. */
  readonly connection: RedisConnection;
  readonly partition: number;
  readonly buckets: readonly number[];
  /**
   * BLOCK of one XREAD, ms. Each reply proves that the position is current, so proofs are this far apart while nothing
   * changes. Readers are marked stale one second after the last proof.
   */
  readonly blockMs: number;
  /** Interval of the check for gaps in the streams, and of the reload of the collections, ms. */
  readonly checkMs: number;
  /** Resolves with the ID of the data that the buckets hold. Rejects if the buckets must not be read. */
  readonly readDataId: (client: Redis) => Promise<string>;
  readonly keys: Keys;
  readonly log: Logger;
  readonly damagedRecords: DamagedRecords;
  readonly loads: LoadLimit;
  readonly loadLog: LoadLog;
}

/** Follows the change streams of some buckets with blocking reads: one partition of the feed. */
export class Follower {
  readonly #options: FollowerOptions;
  readonly #connection: RedisConnection;
  readonly #partition: number;
  readonly #listener: FeedListener;
  readonly #positions: StreamPositions;
  readonly #snapshot: SnapshotReader;
  /** ID of the data set that the positions refer to. */
  #dataId: string | undefined;
  /** ID of the data set at the last check. */
  #foundDataId: string | undefined;
  /** BLOCK of the next read, ms; 0: it does not block. */
  #blockMs = 0;
  #hasLoaded = false;
  #isLoading = false;
  /** Whether `UNAVAILABLE_AFTER_MS` has passed. Set by a timer: by `performance.now()`, timers can fire early. */
  #isLate = false;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;

  /** Starts the calls to the listener. */
  constructor(options: FollowerOptions, listener: FeedListener) {
    const { connection, keys, buckets, damagedRecords } = options;
    this.#options = options;
    this.#connection = connection;
    this.#partition = options.partition;
    this.#listener = listener;
    this.#snapshot = new SnapshotReader(connection, keys, damagedRecords);
    const streams = buckets.map((bucket) => keys.changes(bucket));
    this.#positions = new StreamPositions(connection, streams, damagedRecords);
    this.#running = this.#run();
  }

  /** Resolves when the listener will not be called again. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#connection.close();
    await this.#running;
  }

  async #run(): Promise<void> {
    const timer = setTimeout(() => {
      this.#isLate = true;
      this.#reportIfUnavailable();
    }, UNAVAILABLE_AFTER_MS);
    while (!this.#isStopping) {
      try {
        await this.#untilReady();
        await this.#follow();
      } catch (error) {
        if (!this.#isStopping) {
          this.#connection.noteError(error);
          this.#options.log.debug(
            { err: error, partition: this.#partition },
            "The change feed was interrupted; resuming",
          );
          this.#reportIfUnavailable();
          await this.#pause(RETRY_MS);
        }
      }
    }
    clearTimeout(timer);
  }

  /** Reports changes until the connection breaks. */
  async #follow(): Promise<void> {
    this.#blockMs = 0;
    while (!this.#isStopping) {
      const found = await this.#check();
      if (found !== "continuous") {
        await this.#load(found === "other data");
      }
      await this.#refresh();
      await this.#readChanges(performance.now() + this.#options.checkMs);
    }
  }

  async #check(): Promise<Continuity> {
    this.#foundDataId = await this.#options.readDataId(this.#connection.client);
    return this.#dataId !== undefined && this.#foundDataId !== this.#dataId
      ? "other data"
      : await this.#positions.check();
  }

  /**
   * Reads changes until a time of `performance.now()`. A reply with fewer entries than it has room for proves that the
   * positions after it were current when Redis ran the command: after the request was sent or, if the command timed out,
   * `blockMs` later. After a reconnect and after a load the first read does not block, so that the proof follows at once.
   */
  async #readChanges(until: number): Promise<void> {
    while (performance.now() < until) {
      const streams = this.#positions.readable();
      if (streams.length === 0) {
        await this.#pause(this.#options.blockMs);
        return;
      }
      const sentAt = performance.now();
      const reply = await this.#xread(streams);
      if (this.#isStopping) {
        return;
      }
      for (const [stream, entries] of reply ?? []) {
        this.#report(stream, entries);
      }
      const isComplete = (reply ?? []).every(([, entries]) => entries.length < CHANGES_PER_READ_MAX);
      if (isComplete) {
        this.#listener.onCurrent(reply === null ? sentAt + this.#blockMs : sentAt, this.#partition);
      }
      this.#blockMs = isComplete ? this.#options.blockMs : 0;
    }
  }

  /** Reads once from the current positions. */
  #xread(streams: readonly string[]): ReturnType<Redis["xread"]> {
    const { client } = this.#connection;
    const from = [...streams, ...streams.map((stream) => this.#positions.idOf(stream))];
    return this.#blockMs === 0
      ? client.xread("COUNT", CHANGES_PER_READ_MAX, "STREAMS", ...from)
      : client.xread("COUNT", CHANGES_PER_READ_MAX, "BLOCK", this.#blockMs, "STREAMS", ...from);
  }

  /** Moves the position of a stream behind entries, and reports them. */
  #report(stream: string, entries: readonly StreamEntry[]): void {
    this.#positions.advance(stream, entries);
    const { changes, superseded } = decodeNewest(stream, entries, this.#options.damagedRecords);
    if (superseded.size > 0) {
      this.#listener.onSuperseded(superseded);
    }
    if (changes.length > 0) {
      this.#listener.onChanges(changes, this.#partition);
    }
  }

  /** Reports what the change streams do not have. */
  async #refresh(): Promise<void> {
    const reread = await this.#snapshot.reread();
    if (reread.length > 0 && !this.#isStopping) {
      this.#listener.onProducts(reread, this.#partition);
    }
    if (this.#options.buckets.includes(BUCKET_OF_COLLECTIONS)) {
      await this.#reloadCollections();
    }
  }

  /** If the key has a foreign type, those that were read last are kept. */
  async #reloadCollections(): Promise<void> {
    const { keys, damagedRecords } = this.#options;
    const key = keys.collections();
    try {
      const entries = await this.#connection.client.hgetall(key);
      if (!this.#isStopping) {
        this.#listener.onCollections(decodeCollections(key, entries, damagedRecords));
      }
    } catch (error) {
      damagedRecords.foundForeignType("collection", key, error);
    }
  }

  /** Reports a snapshot. The positions are read before it, so that no change between the two is missed. */
  async #load(isOtherData: boolean): Promise<void> {
    const { buckets, loads, loadLog } = this.#options;
    const startedAt = performance.now();
    const round = new AbortController();
    const signal = AbortSignal.any([round.signal, this.#stopping.signal]);
    this.#isLoading = true;
    try {
      this.#listener.onLoading(isOtherData, this.#partition);
      const positions = await this.#positions.ends();
      const counts = await Promise.all(
        buckets.map((bucket) => loads.run(() => this.#loadBucket(bucket, signal))),
      );
      if (this.#isStopping) {
        return;
      }
      this.#positions.set(positions);
      this.#dataId = this.#foundDataId;
      this.#blockMs = 0;
      this.#hasLoaded = true;
      this.#listener.onLoaded(this.#partition);
      const products = counts.reduce((sum, count) => sum + count, 0);
      loadLog.loaded(this.#partition, products, startedAt);
    } finally {
      round.abort();
      this.#isLoading = false;
    }
  }

  /** Resolves with the number of products. */
  async #loadBucket(bucket: number, signal: AbortSignal): Promise<number> {
    let products = 0;
    if (signal.aborted) {
      return products;
    }
    for await (const states of this.#snapshot.products(bucket)) {
      if (signal.aborted) {
        break;
      }
      products += states.length;
      this.#listener.onProducts(states, this.#partition);
    }
    return products;
  }

  #reportIfUnavailable(): void {
    if (this.#isLate && !this.#hasLoaded && !this.#isLoading && !this.#isStopping) {
      this.#listener.onUnavailable(this.#partition);
    }
  }

  get #isStopping(): boolean {
    return this.#stopping.signal.aborted;
  }

  async #untilReady(): Promise<void> {
    if (this.#connection.isReady) {
      return;
    }
    const ready = Promise.withResolvers<void>();
    this.#connection.onceReady(ready.resolve);
    this.#stopping.signal.addEventListener("abort", () => ready.resolve(), { once: true });
    await ready.promise;
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#stopping.signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      this.#stopping.signal.addEventListener("abort", done);
    });
  }
}
