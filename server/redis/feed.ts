import type { Redis } from "ioredis";
import type { Logger } from "pino";
import type { Collection } from "../inventory/collection.ts";
import type { ChangeFeed, FeedListener } from "../inventory/feed.ts";
import type { StockChange } from "../inventory/ledger.ts";
import type { RedisConnection } from "./connection/client.ts";
import type { RedisEndpoint } from "./connection/endpoint.ts";
import { openPrimaries } from "./connection/open-primaries.ts";
import type { Primaries } from "./connection/primaries.ts";
import { DamagedRecords } from "./damaged-records.ts";
import type { RedisInstruments } from "./instruments.ts";
import type { Keys } from "./keys.ts";
import { decodeChange, decodeCollections, list } from "./reply.ts";
import { SnapshotReader } from "./snapshot.ts";

/**
 * BLOCK of one XREAD, ms. Each reply proves that the position is current, so proofs are this far apart while nothing
 * changes. With readers marked stale one second after the last proof, round trips of up to 400 ms leave no gap.
 */
const BLOCK_MS = 100;
/** Maximum entries of one bucket in one XREAD. */
const CHANGES_PER_READ_MAX = 500;
/** Buckets loaded concurrently, so that Redis reads the next products while this server decodes the last ones. */
const LOADS_MAX = 6;
/** Interval of the check for gaps in the streams and of the reload of the collections, while changes are being read. */
const CHECK_INTERVAL_MS = 500;
/** Delay before the next attempt after an error. */
const RETRY_MS = 100;

/** How far a stream has been read. */
interface Position {
  /** ID of the last entry read. */
  readonly id: string;
  /** Number of entries that were ever added up to and including it. */
  readonly count: number;
  /** The text of that entry, to recognise it; `undefined` at the start of a stream. */
  readonly text: string | undefined;
}

const STREAM_START: Position = { id: "0-0", count: 0, text: undefined };

/**
 * Whether the streams continue at our positions. `"gap"`: before the first snapshot, and after a trim of entries that
 * were not read. `"other data"`: this is not the data set that the positions refer to.
 */
type Continuity = "continuous" | "gap" | "other data";

interface RedisFeedOptions {
  readonly endpoint: RedisEndpoint;
  readonly keys: Keys;
  readonly log: Logger;
  readonly damagedRecords?: DamagedRecords;
  readonly instruments?: RedisInstruments;
}

/**
 * Follows the change streams of all buckets with blocking reads, on a connection of its own: commands behind a
 * blocking read wait for it.
 */
export class RedisFeed implements ChangeFeed {
  readonly #primaries: Primaries;
  readonly #connection: RedisConnection;
  readonly #keys: Keys;
  readonly #log: Logger;
  readonly #streams: readonly string[];
  readonly #damagedRecords: DamagedRecords;
  readonly #snapshot: SnapshotReader;
  /** Streams whose key has a foreign type. They are left out until it has been removed. */
  readonly #damagedStreams = new Set<string>();
  /** Positions by stream. Empty before the first snapshot. */
  readonly #positions = new Map<string, Position>();
  /** ID of the data set that the positions refer to. */
  #dataId: string | undefined;
  /** ID of the data set at the last check. */
  #foundDataId: string | undefined;
  #stopping = new AbortController();
  #running: Promise<void> = Promise.resolve();

  constructor(options: RedisFeedOptions) {
    this.#keys = options.keys;
    this.#log = options.log;
    this.#damagedRecords =
      options.damagedRecords ?? new DamagedRecords(options.log, options.instruments?.metrics);
    this.#primaries = openPrimaries(options);
    this.#connection = this.#primaries.open("feed", 0);
    this.#snapshot = new SnapshotReader(() => this.#connection, options.keys, this.#damagedRecords);
    this.#streams = Array.from({ length: options.keys.buckets }, (_, bucket) => options.keys.changes(bucket));
  }

  start(listener: FeedListener): void {
    this.#running = this.#run(listener);
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#connection.close();
    this.#primaries.close();
    await this.#running;
  }

  async #run(listener: FeedListener): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      try {
        await this.#untilReady();
        await this.#follow(listener);
      } catch (error) {
        if (!this.#stopping.signal.aborted) {
          this.#connection.noteError(error);
          this.#log.debug({ err: error }, "The change feed was interrupted; resuming");
          await this.#pause(RETRY_MS);
        }
      }
    }
  }

  /** Reports changes until the connection breaks. */
  async #follow(listener: FeedListener): Promise<void> {
    let found = await this.#checkPositions();
    while (!this.#stopping.signal.aborted) {
      if (found !== "continuous") {
        await this.#load(listener, found === "other data");
      }
      await this.#refresh(listener, this.#stopping.signal);
      const round = new AbortController();
      const signal = AbortSignal.any([round.signal, this.#stopping.signal]);
      try {
        found = await Promise.race([
          this.#readChanges(listener, signal),
          this.#keepChecking(listener, signal),
        ]);
      } finally {
        round.abort();
      }
    }
  }

  /**
   * Reads changes until the signal. A reply with fewer entries than it has room for proves that the positions after it
   * were current when Redis ran the command: after the request was sent or, if the command timed out, `BLOCK_MS`
   * later. The first read does not block, so that the proof follows a reconnect at once.
   */
  async #readChanges(listener: FeedListener, signal: AbortSignal): Promise<Continuity> {
    let blockMs = 0;
    while (!signal.aborted) {
      const streams = this.#streams.filter((stream) => !this.#damagedStreams.has(stream));
      if (streams.length === 0) {
        await this.#pause(BLOCK_MS);
        continue;
      }
      const sentAt = performance.now();
      const reply = await this.#xread(streams, blockMs);
      if (signal.aborted) {
        break;
      }
      const changes = this.#advance(reply ?? []);
      if (changes.length > 0) {
        listener.onChanges(changes);
      }
      const isComplete = (reply ?? []).every(([, entries]) => entries.length < CHANGES_PER_READ_MAX);
      if (isComplete) {
        listener.onCurrent(reply === null ? sentAt + blockMs : sentAt);
      }
      blockMs = isComplete ? BLOCK_MS : 0;
    }
    return "continuous";
  }

  /** Reads once from the current positions. `blockMs` 0: does not block. */
  #xread(streams: readonly string[], blockMs: number): ReturnType<Redis["xread"]> {
    const { client } = this.#connection;
    const from = [...streams, ...streams.map((stream) => this.#positionOf(stream).id)];
    return blockMs === 0
      ? client.xread("COUNT", CHANGES_PER_READ_MAX, "STREAMS", ...from)
      : client.xread("COUNT", CHANGES_PER_READ_MAX, "BLOCK", blockMs, "STREAMS", ...from);
  }

  /** Checks the positions at an interval, while changes are read, until they are not continuous or the signal. */
  async #keepChecking(listener: FeedListener, signal: AbortSignal): Promise<Continuity> {
    let found: Continuity = "continuous";
    while (found === "continuous") {
      await this.#pause(CHECK_INTERVAL_MS);
      if (signal.aborted) {
        break;
      }
      found = await this.#checkPositions();
      if (found === "continuous") {
        await this.#refresh(listener, signal);
      }
    }
    return found;
  }

  /** Reports what the change streams do not have. */
  async #refresh(listener: FeedListener, signal: AbortSignal): Promise<void> {
    const reread = await this.#snapshot.reread();
    const collections = await this.#collections();
    if (signal.aborted) {
      return;
    }
    if (reread.length > 0) {
      listener.onProducts(reread);
    }
    if (collections !== undefined) {
      listener.onCollections(collections);
    }
  }

  /** Moves the positions behind the entries of a reply, and decodes them. */
  #advance(reply: NonNullable<Awaited<ReturnType<Redis["xread"]>>>): StockChange[] {
    return reply.flatMap(([stream, entries]) => {
      const last = entries.at(-1);
      if (last !== undefined) {
        const { count } = this.#positionOf(stream);
        this.#positions.set(stream, {
          id: last[0],
          count: count + entries.length,
          text: last[1][1],
        });
      }
      return entries.flatMap(
        (entry) =>
          this.#damagedRecords.decode("stream", `${stream} ${entry[0]}`, () => decodeChange(entry)) ?? [],
      );
    });
  }

  /** Compares the positions with the streams. */
  async #checkPositions(): Promise<Continuity> {
    this.#foundDataId = (await this.#primaries.checkLayout(this.#connection.client)).dataId;
    if (this.#dataId !== undefined && this.#foundDataId !== this.#dataId) {
      return "other data";
    }
    if (this.#positions.size === 0) {
      return "gap";
    }
    const found = await Promise.all(
      this.#streams.map(async (stream) => {
        // Read before the stream's state: the position advances meanwhile.
        const position = this.#positionOf(stream);
        const info = await this.#streamInfo(stream);
        if (info === undefined) {
          return "continuous";
        }
        const { length, added } = info;
        if (added < position.count || !(await this.#hasEntry(stream, position, added - length))) {
          // Another history of the same data: a restored backup, or a failover that lost entries.
          return "other data";
        }
        // A stream is trimmed at its oldest end. If more entries were trimmed than read, some were missed.
        return added - length > this.#positionOf(stream).count ? "gap" : "continuous";
      }),
    );
    return (
      found.find((each) => each === "other data") ?? found.find((each) => each === "gap") ?? "continuous"
    );
  }

  /**
   * Whether the entry at a position is in the stream. A replica has a prefix of what its primary wrote, so a stream that
   * has this entry has every one before it. `trimmed` entries cannot be compared.
   */
  async #hasEntry(stream: string, { id, count, text }: Position, trimmed: number): Promise<boolean> {
    if (text === undefined || count <= trimmed) {
      return true;
    }
    const [entry] = await this.#connection.client.xrange(stream, id, id);
    if (entry !== undefined) {
      return entry[1][1] === text;
    }
    // Missing, unless it was trimmed since.
    const info = await this.#streamInfo(stream);
    return info === undefined || count <= info.added - info.length;
  }

  /** `undefined` if the key has a foreign type: then nothing can be added to the stream. */
  async #streamInfo(stream: string): Promise<{ length: number; added: number; last: string } | undefined> {
    const { client } = this.#connection;
    let reply: readonly unknown[];
    try {
      reply = (await client.exists(stream)) === 0 ? [] : list(await client.xinfo("STREAM", stream));
    } catch (error) {
      this.#damagedRecords.foundForeignType("stream", stream, error);
      this.#damagedStreams.add(stream);
      return undefined;
    }
    if (this.#damagedStreams.delete(stream)) {
      this.#damagedRecords.repaired("stream", stream);
    }
    if (reply.length === 0) {
      return { length: 0, added: 0, last: STREAM_START.id };
    }
    const field = (name: string): unknown => reply[reply.indexOf(name) + 1];
    return {
      length: Number(field("length")),
      added: Number(field("entries-added")),
      last: String(field("last-generated-id")),
    };
  }

  /** Reports a snapshot. The positions are read before it, so that no change between the two is missed. */
  async #load(listener: FeedListener, isOtherData: boolean): Promise<void> {
    const start = performance.now();
    listener.onLoading(isOtherData);
    const positions = await Promise.all(this.#streams.map((stream) => this.#lastPosition(stream)));
    let products = 0;
    let next = 0;
    const loadBuckets = async (): Promise<void> => {
      while (next < this.#keys.buckets) {
        for await (const states of this.#snapshot.products(next++)) {
          products += states.length;
          listener.onProducts(states);
        }
      }
    };
    await Promise.all(Array.from({ length: LOADS_MAX }, loadBuckets));
    for (const [index, stream] of this.#streams.entries()) {
      this.#positions.set(stream, positions[index] ?? STREAM_START);
    }
    this.#dataId = this.#foundDataId;
    listener.onLoaded();
    this.#log.info({ products, ms: Math.round(performance.now() - start) }, "Loaded every product's state");
  }

  async #lastPosition(stream: string): Promise<Position> {
    const info = await this.#streamInfo(stream);
    if (info === undefined) {
      return STREAM_START;
    }
    const { last, added } = info;
    const [entry] = await this.#connection.client.xrange(stream, last, last);
    return { id: last, count: added, text: entry?.[1][1] };
  }

  /** `undefined` if the key has a foreign type: those that were read last are kept. */
  async #collections(): Promise<Collection[] | undefined> {
    const key = this.#keys.collections();
    try {
      const entries = await this.#connection.client.hgetall(key);
      return decodeCollections(key, entries, this.#damagedRecords);
    } catch (error) {
      this.#damagedRecords.foundForeignType("collection", key, error);
      return undefined;
    }
  }

  #positionOf(stream: string): Position {
    return this.#positions.get(stream) ?? STREAM_START;
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
