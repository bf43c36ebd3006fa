import type { Logger } from "pino";
import type { StockChange } from "../inventory/ledger.ts";
import type {
  ChangeOutbox,
  OutboxBacklog,
  OutboxBatch,
  OutboxEntry,
  OutboxLease,
  OutboxState,
} from "../inventory/outbox.ts";
import type { RedisConnection } from "./connection/client.ts";
import type { RedisEndpoint } from "./connection/endpoint.ts";
import { openPrimaries } from "./connection/open-primaries.ts";
import type { Primaries } from "./connection/primaries.ts";
import { DamagedRecords } from "./damaged-records.ts";
import type { RedisInstruments } from "./instruments.ts";
import type { Keys } from "./keys.ts";
import { Acknowledgement } from "./mutations/acknowledgement.ts";
import { unexpectedStatus } from "./mutations/mutations.ts";
import { decodeChange, decodeLedger, list, ReplyReader } from "./reply.ts";
import { announceScript, outboxScript, readScript, type Script } from "./scripts.ts";

/** Products of one snapshot batch: about a millisecond of Redis's time. */
const PRODUCTS_PER_SNAPSHOT_BATCH = 256;

/** The bucket whose slot has the list of publishers. */
const PUBLISHERS_BUCKET = 0;

interface RedisOutboxOptions {
  readonly endpoint: RedisEndpoint;
  readonly keys: Keys;
  readonly log: Logger;
  readonly damagedRecords?: DamagedRecords;
  readonly instruments?: RedisInstruments;
}

/** The connection for a group of buckets. */
interface Lane {
  readonly connection: RedisConnection;
  readonly acknowledgement: Acknowledgement;
}

/**
 * The outbox over the change streams in Redis, on connections of its own, because its long replies would delay
 * reservations: one for each group of buckets that one command may touch.
 */
export class RedisOutbox implements ChangeOutbox {
  readonly buckets: number;
  readonly #primaries: Primaries;
  /** By the bucket that stands for the group. */
  readonly #lanes: ReadonlyMap<number, Lane>;
  readonly #keys: Keys;
  readonly #damagedRecords: DamagedRecords;
  readonly #outbox = outboxScript();
  readonly #announce = announceScript();
  readonly #read = readScript();

  constructor(options: RedisOutboxOptions) {
    const { keys, log, damagedRecords, instruments } = options;
    this.buckets = keys.buckets;
    this.#keys = keys;
    this.#damagedRecords = damagedRecords ?? new DamagedRecords(log, instruments?.metrics);
    this.#primaries = openPrimaries(options);
    this.#lanes = this.#open(options);
  }

  async announce(owner: string, ttlMs: number): Promise<number> {
    return Number(
      await this.#run(PUBLISHERS_BUCKET, this.#announce, [this.#keys.publishers()], [owner, ttlMs]),
    );
  }

  async retire(owner: string): Promise<void> {
    await this.#run(PUBLISHERS_BUCKET, this.#announce, [this.#keys.publishers()], [owner, 0]);
  }

  async acquire(bucket: number, owner: string, leaseMs: number): Promise<OutboxLease | undefined> {
    const reply = await this.#call(bucket, "acquire", owner, leaseMs);
    const status = reply.text();
    switch (status) {
      case "ok":
        return { bucket, owner, token: reply.integer() };
      case "taken":
      case "damaged":
        return undefined;
      default:
        throw unexpectedStatus(status);
    }
  }

  async renew(lease: OutboxLease, leaseMs: number): Promise<boolean> {
    return isHeld(await this.#call(lease.bucket, "renew", lease.token, leaseMs));
  }

  async release(lease: OutboxLease): Promise<void> {
    await this.#call(lease.bucket, "release", lease.token);
  }

  async read(lease: OutboxLease, limit: number): Promise<OutboxBatch | undefined> {
    const reply = await this.#call(lease.bucket, "read", lease.token, limit);
    if (!isHeld(reply)) {
      return undefined;
    }
    const snapshotDue = reply.integer() === 1;
    const entries = this.#decodeEntries(lease.bucket, reply.items());
    const [first] = entries;
    if (first !== undefined && first.change === undefined) {
      // A damaged entry is skipped: the cursor moves past it.
      await this.#call(lease.bucket, "advance", lease.token, first.id, 1);
      return await this.read(lease, limit);
    }
    if (entries.length > 0) {
      await this.#confirm(lease.bucket);
    }
    return { entries: takeDecoded(entries), snapshotDue };
  }

  async advance(lease: OutboxLease, published: readonly OutboxEntry[]): Promise<boolean> {
    const last = published.at(-1);
    if (last === undefined) {
      return true;
    }
    return isHeld(await this.#call(lease.bucket, "advance", lease.token, last.id, published.length));
  }

  async *snapshot(bucket: number): AsyncGenerator<readonly OutboxState[]> {
    let cursor = "0";
    do {
      const [next, productIds] = await this.#scan(bucket, cursor);
      const keys = productIds.flatMap((productId) => this.#keys.readKeys(productId));
      const replies = keys.length === 0 ? [] : list(await this.#run(bucket, this.#read, keys, []));
      await this.#confirm(bucket);
      yield productIds.flatMap((productId, index) => {
        const reply = new ReplyReader(replies[index]);
        const status = reply.text();
        if (status !== "ok" && status !== "damaged") {
          return [];
        }
        const text = reply.text();
        const key = this.#keys.ledger(productId, bucket);
        return this.#damagedRecords.decode("ledger", key, () => decodeLedger(productId, text)) ?? [];
      });
      cursor = next;
    } while (cursor !== "0");
  }

  async snapshotDone(lease: OutboxLease): Promise<boolean> {
    return isHeld(await this.#call(lease.bucket, "snapshot_done", lease.token));
  }

  async backlog(): Promise<OutboxBacklog[]> {
    const backlogs = await Promise.all(
      Array.from({ length: this.buckets }, async (_, bucket) => {
        const reply = await this.#call(bucket, "backlog");
        return isHeld(reply) ? [{ bucket, entries: reply.integer(), oldestMs: reply.integer() }] : [];
      }),
    );
    return backlogs.flat();
  }

  async close(): Promise<void> {
    for (const { connection } of this.#lanes.values()) {
      connection.close();
    }
    this.#primaries.close();
  }

  #scan(bucket: number, cursor: string): Promise<[string, string[]]> {
    return this.#laneOf(bucket).connection.send((client) =>
      client.sscan(this.#keys.products(bucket), cursor, "COUNT", PRODUCTS_PER_SNAPSHOT_BATCH),
    );
  }

  async #call(bucket: number, operation: string, ...args: (string | number)[]): Promise<ReplyReader> {
    const keys = [this.#keys.outbox(bucket), this.#keys.changes(bucket)];
    const reply = new ReplyReader(await this.#run(bucket, this.#outbox, keys, [operation, ...args]));
    if (reply.peek() === "damaged") {
      const [, reason] = reply.all();
      this.#damagedRecords.found("outbox", this.#keys.outbox(bucket), String(reason));
    }
    return reply;
  }

  /** Entries of the stream. `change` is `undefined` in those that are damaged. */
  #decodeEntries(bucket: number, items: readonly unknown[]) {
    return items.map((item) => {
      const id = String(list(item)[0]);
      const key = `${this.#keys.changes(bucket)} ${id}`;
      return { id, change: this.#damagedRecords.decode("stream", key, () => decodeChange(item)) };
    });
  }

  /**
   * Resolves when replicas have everything that was read of a bucket so far. A change that a failover can still lose must
   * not be published, because its event ID could be assigned to another change. WAIT covers only the writes of its own
   * connection, so the script writes a field first.
   */
  async #confirm(bucket: number): Promise<void> {
    const { connection, acknowledgement } = this.#laneOf(bucket);
    if (acknowledgement.needed > 0) {
      const keys = [this.#keys.outbox(bucket), this.#keys.changes(bucket)];
      await connection.send(() => acknowledgement.run(connection, this.#outbox, keys, ["beat"]));
    }
  }

  #run(
    bucket: number,
    script: Script,
    keys: readonly string[],
    args: readonly (string | number)[],
  ): Promise<unknown> {
    const { connection } = this.#laneOf(bucket);
    return connection.send(() => connection.run(script, keys, args));
  }

  #open({ endpoint, instruments }: RedisOutboxOptions): Map<number, Lane> {
    const primaries = this.#primaries;
    const groups = new Set(Array.from({ length: this.buckets }, (_, bucket) => primaries.groupOf(bucket)));
    return new Map(
      [...groups].map((group) => {
        const connection = primaries.open("outbox", group, (client) => primaries.checkLayout(client));
        const acknowledgement = new Acknowledgement(endpoint.acks ?? 0, primaries.confirmation, instruments);
        return [group, { connection, acknowledgement }];
      }),
    );
  }

  #laneOf(bucket: number): Lane {
    const lane = this.#lanes.get(this.#primaries.groupOf(bucket));
    if (lane === undefined) {
      throw new RangeError(`There is no bucket ${bucket}`);
    }
    return lane;
  }
}

/** The entries before the first damaged one. */
function takeDecoded(entries: readonly { id: string; change: StockChange | undefined }[]): OutboxEntry[] {
  const decoded: OutboxEntry[] = [];
  for (const { id, change } of entries) {
    if (change === undefined) {
      break;
    }
    decoded.push({ id, change });
  }
  return decoded;
}

/** Whether the operation was done: not if the lease was lost or the bucket's outbox is damaged. */
function isHeld(reply: ReplyReader): boolean {
  const status = reply.text();
  switch (status) {
    case "ok":
      return true;
    case "lost":
    case "damaged":
      return false;
    default:
      throw unexpectedStatus(status);
  }
}
