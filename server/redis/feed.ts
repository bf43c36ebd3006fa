import type { Logger } from "pino";
import type { ChangeFeed, FeedListener, ProductState } from "../inventory/feed.ts";
import { RedisConnection, type RedisEndpoint } from "./client.ts";
import type { RedisInstruments } from "./instruments.ts";
import type { Keys } from "./keys.ts";
import { decodeChange, decodeCollection, decodeStates, list, ReplyReader } from "./reply.ts";
import { checkLayout } from "./requirements.ts";
import { loadScript } from "./scripts.ts";

/** How long one blocking read waits for changes. Below the time after which a silent connection counts as dead. */
const BLOCK_MS = 500;
/** Most entries of one bucket in one read. */
const CHANGES_PER_READ_MAX = 500;
/** Products asked for at once while the full picture loads: about 3 ms of Redis's time. */
const PRODUCTS_PER_LOAD_MAX = 500;
/** Buckets that load at the same time, so that Redis always has the next products to read while this server takes in the last ones. */
const LOADS_MAX = 6;
/** Between two looks whether the streams still hold what comes after our places, and at the collections. */
const CHECK_INTERVAL_MS = 2_000;
/** Between two tries after a failure that Redis itself answered. */
const RETRY_MS = 500;

/** How far we were told of a stream. */
interface Place {
  /** The last entry told. */
  readonly id: string;
  /** How many entries were ever added up to it. */
  readonly count: number;
}

const BEGINNING: Place = { id: "0-0", count: 0 };

interface RedisFeedOptions {
  readonly endpoint: RedisEndpoint;
  readonly keys: Keys;
  readonly log: Logger;
  readonly instruments?: RedisInstruments;
}

/**
 * Follows the change streams of all buckets on a connection of its own: a blocking read would hold up
 * every other call.
 */
export class RedisFeed implements ChangeFeed {
  readonly #connection: RedisConnection;
  readonly #keys: Keys;
  readonly #log: Logger;
  readonly #streams: readonly string[];
  readonly #script = loadScript();
  /** The last entry told, by stream. Empty before the first full picture. */
  readonly #places = new Map<string, Place>();
  /** Names the data that the places are of. */
  #dataId: string | undefined;
  #stopping = new AbortController();
  #running: Promise<void> = Promise.resolve();

  constructor(options: RedisFeedOptions) {
    this.#keys = options.keys;
    this.#log = options.log;
    this.#connection = new RedisConnection("feed", options.endpoint, options.log, options.instruments);
    this.#streams = Array.from({ length: options.keys.buckets }, (_, bucket) => options.keys.changes(bucket));
  }

  start(listener: FeedListener): void {
    this.#running = this.#run(listener);
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#connection.close();
    await this.#running;
  }

  async #run(listener: FeedListener): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      try {
        await this.#untilReady();
        await this.#follow(listener);
      } catch (error) {
        if (!this.#stopping.signal.aborted) {
          listener.onStale(true);
          this.#log.debug({ err: error }, "The change feed broke off; it takes up again");
          await this.#pause(RETRY_MS);
        }
      }
    }
  }

  /** Tells changes until the connection breaks. */
  async #follow(listener: FeedListener): Promise<void> {
    let checkedAt = Number.NEGATIVE_INFINITY;
    while (!this.#stopping.signal.aborted) {
      if (performance.now() - checkedAt >= CHECK_INTERVAL_MS) {
        const found = await this.#lookAtPlaces();
        if (found !== "kept") {
          await this.#load(listener, found === "other data");
        }
        listener.onCollections(await this.#collections());
        listener.onStale(false);
        checkedAt = performance.now();
      }
      const changes = await this.#readChanges();
      if (changes.length > 0) {
        listener.onChanges(changes);
      }
    }
  }

  async #readChanges() {
    const reply = await this.#connection.client.xread(
      "COUNT",
      CHANGES_PER_READ_MAX,
      "BLOCK",
      BLOCK_MS,
      "STREAMS",
      ...this.#streams,
      ...this.#streams.map((stream) => this.#placeOf(stream).id),
    );
    return (reply ?? []).flatMap(([stream, entries]) => {
      const last = entries.at(-1);
      if (last !== undefined) {
        const { count } = this.#placeOf(stream);
        this.#places.set(stream, { id: last[0], count: count + entries.length });
      }
      return entries.map(decodeChange);
    });
  }

  /**
   * Whether the streams still hold what comes after our places. `"missed"` before the first full
   * picture and after a trim that overtook us; `"other data"` where this is not the data that we followed.
   */
  async #lookAtPlaces(): Promise<"kept" | "missed" | "other data"> {
    const dataId = await checkLayout(this.#connection.client, this.#keys);
    const isOtherData = this.#dataId !== undefined && dataId !== this.#dataId;
    this.#dataId = dataId;
    if (isOtherData) {
      return "other data";
    }
    if (this.#places.size === 0) {
      return "missed";
    }
    const found = await Promise.all(
      this.#streams.map(async (stream) => {
        const { length, added } = await this.#streamInfo(stream);
        const { count } = this.#placeOf(stream);
        if (added < count) {
          // An older state of the same data: a backup, or a replica that was behind.
          return "other data";
        }
        // A stream drops its oldest entries: more of them than we have been told of, and some are lost to us.
        return added - length > count ? "missed" : "kept";
      }),
    );
    return found.find((each) => each === "other data") ?? found.find((each) => each === "missed") ?? "kept";
  }

  async #streamInfo(stream: string): Promise<{ length: number; added: number; last: string }> {
    if ((await this.#connection.client.exists(stream)) === 0) {
      return { length: 0, added: 0, last: BEGINNING.id };
    }
    const reply = list(await this.#connection.client.xinfo("STREAM", stream));
    const field = (name: string): unknown => reply[reply.indexOf(name) + 1];
    return {
      length: Number(field("length")),
      added: Number(field("entries-added")),
      last: String(field("last-generated-id")),
    };
  }

  /** Tells the full picture. The places are read first, so that no change between them and the picture is lost. */
  async #load(listener: FeedListener, isOtherData: boolean): Promise<void> {
    const start = performance.now();
    listener.onLoading(isOtherData);
    const infos = await Promise.all(this.#streams.map((stream) => this.#streamInfo(stream)));
    let products = 0;
    let next = 0;
    const loadBuckets = async (): Promise<void> => {
      while (next < this.#keys.buckets) {
        for await (const states of this.#statesOf(next++)) {
          products += states.length;
          listener.onProducts(states);
        }
      }
    };
    await Promise.all(Array.from({ length: LOADS_MAX }, loadBuckets));
    for (const [index, stream] of this.#streams.entries()) {
      const info = infos[index];
      this.#places.set(stream, info === undefined ? BEGINNING : { id: info.last, count: info.added });
    }
    listener.onLoaded();
    this.#log.info({ products, ms: Math.round(performance.now() - start) }, "Loaded every product's state");
  }

  async *#statesOf(bucket: number): AsyncGenerator<ProductState[]> {
    let cursor = "0";
    do {
      const [next, ids] = await this.#connection.client.sscan(
        this.#keys.products(bucket),
        cursor,
        "COUNT",
        PRODUCTS_PER_LOAD_MAX,
      );
      cursor = next;
      if (ids.length > 0) {
        yield await this.#statesWith(bucket, ids);
      }
    } while (cursor !== "0");
  }

  /**
   * Details are read after the ledgers: what is newer than its ledger the stream tells again, and what is older would stay.
   */
  async #statesWith(bucket: number, ids: readonly string[]): Promise<ProductState[]> {
    const ledgers = await this.#connection.run(
      this.#script,
      ids.map((id) => this.#keys.ledger(id, bucket)),
      [],
    );
    const details = await this.#connection.client.mget(ids.map((id) => this.#keys.details(id, bucket)));
    return decodeStates(ids, new ReplyReader([ledgers]).text(), details);
  }

  async #collections() {
    const entries = await this.#connection.client.hgetall(this.#keys.collections());
    return Object.entries(entries).flatMap(([id, text]) => decodeCollection(id, text) ?? []);
  }

  #placeOf(stream: string): Place {
    return this.#places.get(stream) ?? BEGINNING;
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
