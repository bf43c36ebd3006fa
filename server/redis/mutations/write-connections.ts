import type { InventoryError } from "../../inventory/errors.ts";
import type { Prepare, RedisConnection } from "../connection/client.ts";
import type { RedisEndpoint } from "../connection/endpoint.ts";
import type { Primaries } from "../connection/primaries.ts";
import type { RedisInstruments } from "../instruments.ts";
import type { Script } from "../scripts.ts";
import { Acknowledgement } from "./acknowledgement.ts";

/** Batches in flight on one connection, where nothing waits for replicas: two keep Redis busy during a round trip. */
const BATCHES_PER_CONNECTION = 2;
/** Connections where every batch waits for replicas. WAIT blocks its connection, so each carries one batch; four hide the wait. */
const CONNECTIONS_WITH_ACKS = 4;

interface WriteConnectionsOptions {
  readonly endpoint: RedisEndpoint;
  readonly primaries: Primaries;
  readonly instruments: RedisInstruments;
  readonly prepare: Prepare;
}

/** The connections that carry batches of mutations. */
export class WriteConnections {
  readonly capacity: number;
  /** Resolves when every connection has first become ready. Rejects as `RedisConnection.firstReady`. */
  readonly firstReady: Promise<unknown>;
  readonly #connections: readonly { readonly connection: RedisConnection; inFlight: number }[];
  readonly #batchesPerConnection: number;
  readonly #acknowledgement: Acknowledgement;

  constructor({ endpoint, primaries, instruments, prepare }: WriteConnectionsOptions) {
    const acks = endpoint.acks ?? 0;
    this.#acknowledgement = new Acknowledgement(acks, primaries.confirmation, instruments);
    this.#batchesPerConnection = acks === 0 ? BATCHES_PER_CONNECTION : 1;
    const names =
      acks === 0 ? ["writes"] : Array.from({ length: CONNECTIONS_WITH_ACKS }, (_, n) => `writes-${n}`);
    this.#connections = names.map((name) => ({
      connection: primaries.open(name, 0, prepare),
      inFlight: 0,
    }));
    this.capacity = this.#connections.length * this.#batchesPerConnection;
    this.firstReady = Promise.all(this.#connections.map(({ connection }) => connection.firstReady));
    this.firstReady.catch(() => {});
  }

  /** Whether a batch is acknowledged only once replicas have it. */
  get waitsForReplicas(): boolean {
    return this.#acknowledgement.needed > 0;
  }

  /** Whether a batch can be sent now. */
  get isReady(): boolean {
    return this.#freeConnection() !== undefined;
  }

  /** The error for a call if the outage of every connection has lasted so long that calls should not wait for a reconnect. */
  get unavailability(): InventoryError | undefined {
    const errors = this.#connections.map(({ connection }) => connection.unavailability);
    return errors.includes(undefined) ? undefined : errors[0];
  }

  /** Why no connection is ready, or `undefined` if one is. */
  get unreadyReason(): string | undefined {
    const reasons = this.#connections.map(({ connection }) => connection.unreadyReason);
    return reasons.includes(undefined) ? undefined : reasons[0];
  }

  /** Calls `then` once, when any connection next becomes ready. */
  onceReady(then: () => void): void {
    let isCalled = false;
    for (const { connection } of this.#connections) {
      connection.onceReady(() => {
        if (!isCalled) {
          isCalled = true;
          then();
        }
      });
    }
  }

  /** Runs a script on a free connection, and waits for the replicas. Rejects with the error of ioredis, or with `NotReplicated`. */
  async run(script: Script, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown> {
    const free = this.#freeConnection();
    if (free === undefined) {
      throw new Error("No connection is free for a batch of mutations");
    }
    free.inFlight += 1;
    try {
      return await this.#acknowledgement.run(free.connection, script, keys, args);
    } catch (error) {
      free.connection.noteError(error);
      throw error;
    } finally {
      free.inFlight -= 1;
    }
  }

  /** Counts and logs an error reply that came inside the reply of a script. */
  noteErrorReply(text: string): void {
    this.#connections[0]?.connection.noteErrorReply(text);
  }

  /** Closes the connections and opens them again, to the primary as it is now. */
  reconnect(): void {
    for (const { connection } of this.#connections) {
      connection.reconnect();
    }
  }

  close(): void {
    for (const { connection } of this.#connections) {
      connection.close();
    }
  }

  #freeConnection() {
    return this.#connections.find(
      ({ connection, inFlight }) => connection.isReady && inFlight < this.#batchesPerConnection,
    );
  }
}
