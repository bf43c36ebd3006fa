import type { RedisConnection } from "../connection/client.ts";
import type { DamagedRecords } from "../damaged-records.ts";
import { list } from "../reply.ts";

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
 * Whether streams continue at the positions. `"gap"`: before the first snapshot, and after a trim of entries that were
 * not read. `"other data"`: this is not the data set that the positions refer to.
 */
export type Continuity = "continuous" | "gap" | "other data";

/** An entry of a stream: its ID, and names and values of its fields. */
export type StreamEntry = [id: string, fields: string[]];

interface StreamInfo {
  readonly length: number;
  /** Number of entries that were ever added. */
  readonly added: number;
  /** ID of the entry that was added last. */
  readonly last: string;
}

/**
 * How far each of some change streams has been read. A stream moves to another primary with its IDs and its number of
 * entries, so that positions hold there too.
 */
export class StreamPositions {
  readonly #connection: RedisConnection;
  readonly #streams: readonly string[];
  readonly #damagedRecords: DamagedRecords;
  /** Streams whose key has a foreign type. They are left out until it has been removed. */
  readonly #damaged = new Set<string>();
  /** By stream. Empty before the first snapshot. */
  #positions = new Map<string, Position>();

  constructor(connection: RedisConnection, streams: readonly string[], damagedRecords: DamagedRecords) {
    this.#connection = connection;
    this.#streams = streams;
    this.#damagedRecords = damagedRecords;
  }

  /** The streams that can be read. */
  readable(): string[] {
    return this.#streams.filter((stream) => !this.#damaged.has(stream));
  }

  /** ID of the last entry read. */
  idOf(stream: string): string {
    return this.#of(stream).id;
  }

  /** Moves the position of a stream behind entries that were read. */
  advance(stream: string, entries: readonly StreamEntry[]): void {
    const last = entries.at(-1);
    if (last !== undefined) {
      const { count } = this.#of(stream);
      this.#positions.set(stream, { id: last[0], count: count + entries.length, text: last[1][1] });
    }
  }

  /** The positions at the ends of the streams. */
  async ends(): Promise<ReadonlyMap<string, Position>> {
    return new Map(
      await Promise.all(this.#streams.map(async (stream) => [stream, await this.#endOf(stream)] as const)),
    );
  }

  set(positions: ReadonlyMap<string, Position>): void {
    this.#positions = new Map(positions);
  }

  /** Compares the positions with the streams. */
  async check(): Promise<Continuity> {
    if (this.#positions.size === 0) {
      return "gap";
    }
    const found = await Promise.all(this.#streams.map((stream) => this.#checkStream(stream)));
    return (
      found.find((each) => each === "other data") ?? found.find((each) => each === "gap") ?? "continuous"
    );
  }

  async #checkStream(stream: string): Promise<Continuity> {
    const position = this.#of(stream);
    const info = await this.#info(stream);
    if (info === undefined) {
      return "continuous";
    }
    const { length, added } = info;
    if (added < position.count || !(await this.#hasEntry(stream, position, added - length))) {
      // Another history of the same data: a restored backup, or a failover that lost entries.
      return "other data";
    }
    // A stream is trimmed at its oldest end. If more entries were trimmed than read, some were missed.
    return added - length > position.count ? "gap" : "continuous";
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
    const info = await this.#info(stream);
    return info === undefined || count <= info.added - info.length;
  }

  async #endOf(stream: string): Promise<Position> {
    const info = await this.#info(stream);
    if (info === undefined) {
      return STREAM_START;
    }
    const { last, added } = info;
    const [entry] = await this.#connection.client.xrange(stream, last, last);
    return { id: last, count: added, text: entry?.[1][1] };
  }

  /** `undefined` if the key has a foreign type: then nothing can be added to the stream. */
  async #info(stream: string): Promise<StreamInfo | undefined> {
    const { client } = this.#connection;
    let reply: readonly unknown[];
    try {
      reply = (await client.exists(stream)) === 0 ? [] : list(await client.xinfo("STREAM", stream));
    } catch (error) {
      this.#damagedRecords.foundForeignType("stream", stream, error);
      this.#damaged.add(stream);
      return undefined;
    }
    if (this.#damaged.delete(stream)) {
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

  #of(stream: string): Position {
    return this.#positions.get(stream) ?? STREAM_START;
  }
}
