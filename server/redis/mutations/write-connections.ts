import type { Redis } from "ioredis";
import type { InventoryError } from "../../inventory/errors.ts";
import type { Prepare, RedisConnection } from "../connection/client.ts";
import type { Availability, PrimaryConfirmation } from "../connection/primaries.ts";
import { replicationIdIn } from "../connection/requirements.ts";
import type { RedisInstruments } from "../instruments.ts";
import type { Script } from "../scripts.ts";
import { Acknowledgement, type ScriptCall } from "./acknowledgement.ts";

/** Batches in flight on one connection, where nothing waits for replicas: two keep Redis busy during a round trip. */
const BATCHES_PER_CONNECTION = 2;
/** The same for full batches: so many that Redis stays busy while this server computes for some milliseconds. */
const FULL_BATCHES_PER_CONNECTION = 4;
/** Connections where every batch waits for replicas. WAIT blocks its connection, so each carries one batch; four hide the wait. */
const CONNECTIONS_WITH_ACKS = 4;

interface WriteConnectionsOptions {
  /** How many replicas must acknowledge. */
  readonly acks: number;
  /** Opens a connection to the primary. */
  readonly open: (name: string, prepare: Prepare) => RedisConnection;
  readonly confirmation: PrimaryConfirmation | undefined;
  readonly instruments: RedisInstruments;
  /** Runs on each new connection. `replicationId` identifies the primary. */
  readonly prepare: (client: Redis, replicationId: string) => Promise<unknown>;
  /**
   * Checks buckets at the primary before the first batch for them is sent. Resolves with the error of each that must not be
   * written. Absent: `prepare` has checked all.
   */
  readonly checkBuckets?: (
    client: Redis,
    replicationId: string,
    buckets: readonly number[],
  ) => Promise<ReadonlyMap<number, unknown>>;
  /** The node, in a Cluster. */
  readonly node?: string;
}

/** A script call for the buckets that `bucket` stands for. */
export interface BucketCall {
  readonly bucket: number;
  /** Called after the bucket was checked. */
  readonly encode: () => ScriptCall;
}

interface Lane {
  readonly connection: RedisConnection;
  replicationId: string;
  inFlight: number;
}

/** The connections that carry batches of mutations to one primary. */
export class WriteConnections implements Availability {
  /** Number of batches that can be in flight. */
  readonly capacity: number;
  /** The same if they are full. */
  readonly fullCapacity: number;
  /** Resolves when every connection has first become ready. Rejects as `RedisConnection.firstReady`. */
  readonly firstReady: Promise<unknown>;
  readonly #lanes: readonly Lane[];
  readonly #batchesPerConnection: number;
  readonly #acknowledgement: Acknowledgement;
  readonly #checkBuckets: WriteConnectionsOptions["checkBuckets"];

  constructor(options: WriteConnectionsOptions) {
    const { acks, confirmation, instruments, node } = options;
    this.#checkBuckets = options.checkBuckets;
    this.#acknowledgement = new Acknowledgement(acks, confirmation, instruments, node);
    this.#batchesPerConnection = acks === 0 ? FULL_BATCHES_PER_CONNECTION : 1;
    const names =
      acks === 0 ? ["writes"] : Array.from({ length: CONNECTIONS_WITH_ACKS }, (_, n) => `writes-${n}`);
    this.#lanes = names.map((name) => openLane(name, options));
    this.capacity = acks === 0 ? BATCHES_PER_CONNECTION : this.#lanes.length;
    this.fullCapacity = this.#lanes.length * this.#batchesPerConnection;
    this.firstReady = Promise.all(this.#lanes.map(({ connection }) => connection.firstReady));
    this.firstReady.catch(() => {});
  }

  /** Whether a batch is acknowledged only once replicas have it. */
  get waitsForReplicas(): boolean {
    return this.#acknowledgement.needed > 0;
  }

  /** Whether a batch can be sent now. */
  get isReady(): boolean {
    return this.#freeLane() !== undefined;
  }

  /** The error for a call if the outage of every connection has lasted so long that calls should not wait for a reconnect. */
  get unavailability(): InventoryError | undefined {
    const errors = this.#lanes.map(({ connection }) => connection.unavailability);
    return errors.includes(undefined) ? undefined : errors[0];
  }

  /** Why no connection is ready, or `undefined` if one is. */
  get unreadyReason(): string | undefined {
    const reasons = this.#lanes.map(({ connection }) => connection.unreadyReason);
    return reasons.includes(undefined) ? undefined : reasons[0];
  }

  /** Calls `then` once, when any connection next becomes ready. */
  onceReady(then: () => void): void {
    let isCalled = false;
    for (const { connection } of this.#lanes) {
      connection.onceReady(() => {
        if (!isCalled) {
          isCalled = true;
          then();
        }
      });
    }
  }

  /**
   * Runs a script for several buckets on a free connection, and waits for the replicas. Resolves with the outcome of each call,
   * which fails with the error of ioredis, with `NotReplicated`, or with that of the bucket's check.
   */
  async run(script: Script, calls: readonly BucketCall[]): Promise<PromiseSettledResult<unknown>[]> {
    const lane = this.#freeLane();
    if (lane === undefined) {
      throw new Error("No connection is free for a batch of mutations");
    }
    lane.inFlight += 1;
    try {
      const { connection, replicationId } = lane;
      const buckets = calls.map(({ bucket }) => bucket);
      const refused = await this.#checkBuckets?.(connection.client, replicationId, buckets);
      const sent = calls.filter(({ bucket }) => !refused?.has(bucket));
      const outcomes = await this.#acknowledgement.runAll(
        connection,
        script,
        sent.map(({ encode }) => encode()),
      );
      const all = calls.map((call): PromiseSettledResult<unknown> => {
        const outcome = outcomes[sent.indexOf(call)];
        return outcome ?? { status: "rejected", reason: refused?.get(call.bucket) };
      });
      for (const outcome of all) {
        if (outcome.status === "rejected") {
          connection.noteError(outcome.reason);
        }
      }
      return all;
    } finally {
      lane.inFlight -= 1;
    }
  }

  /** Counts and logs an error reply that came inside the reply of a script. */
  noteErrorReply(text: string): void {
    this.#lanes[0]?.connection.noteErrorReply(text);
  }

  /** Closes the connections and opens them again, to the primary as it is now. */
  reconnect(): void {
    for (const { connection } of this.#lanes) {
      connection.reconnect();
    }
  }

  close(): void {
    for (const { connection } of this.#lanes) {
      connection.close();
    }
  }

  #freeLane(): Lane | undefined {
    return this.#lanes.find(
      ({ connection, inFlight }) => connection.isReady && inFlight < this.#batchesPerConnection,
    );
  }
}

function openLane(name: string, { open, prepare }: WriteConnectionsOptions): Lane {
  const lane: Lane = {
    connection: open(name, async (client) => {
      lane.replicationId = replicationIdIn(await client.info("replication"));
      await prepare(client, lane.replicationId);
    }),
    replicationId: "",
    inFlight: 0,
  };
  return lane;
}
