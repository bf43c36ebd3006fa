import type { Redis } from "ioredis";
import type { Logger } from "pino";
import type { InventoryError } from "../../inventory/errors.ts";
import type { RedisInstruments } from "../instruments.ts";
import type { Keys } from "../keys.ts";
import type { Script } from "../scripts.ts";
import { type Prepare, RESPONSE_MS_MAX, RedisConnection } from "./client.ts";
import type { ClusterEndpoint, RedisEndpoint } from "./endpoint.ts";
import { redirectionOf, storeError, storeUnavailable } from "./error-replies.ts";
import type { Availability, Primaries, PrimaryConfirmation } from "./primaries.ts";
import { checkLayout, checkServing, type Layout, recordMarkers } from "./requirements.ts";
import { type Owner, SlotMap } from "./slot-map.ts";

/** Delay before a command is sent again to a node that cannot serve the slot now, ms. */
const RETRY_MS = 20;
/** How long the primary of a bucket may be unknown before calls are rejected at once, ms. */
const UNKNOWN_MS_MAX = 300;

interface ClusterPrimariesOptions {
  readonly endpoint: RedisEndpoint;
  readonly cluster: ClusterEndpoint;
  readonly keys: Keys;
  readonly log: Logger;
  readonly instruments?: RedisInstruments;
}

/** Keys that are in one slot. */
interface Place {
  /** For messages. */
  readonly text: string;
  owner(): Owner | undefined;
}

/** The primaries of a Redis Cluster. Each bucket is in one slot, so each command belongs to one bucket. */
export class ClusterPrimaries implements Primaries {
  readonly isOne = false;
  readonly map: SlotMap;
  readonly confirmation: PrimaryConfirmation;
  readonly firstReady: Promise<unknown>;
  readonly #options: ClusterPrimariesOptions;
  /** By the name of the node. */
  readonly #reads = new Map<string, RedisConnection>();
  readonly #unknownSince = performance.now();
  /** Once every bucket has its marker. It does not change any more. */
  #layout: Layout | undefined;
  #users = 0;

  constructor(options: ClusterPrimariesOptions) {
    this.#options = options;
    const { cluster, endpoint, keys, log, instruments } = options;
    this.map = new SlotMap({
      endpoint: cluster,
      password: endpoint.password,
      keys,
      log,
      metrics: instruments?.metrics,
    });
    this.map.onChange(() => this.#closeUnused());
    this.confirmation = {
      by: "a majority of the primaries",
      confirms: async (client) => this.map.confirms(String(await client.cluster("MYID"))),
    };
    this.firstReady = this.map.firstKnown.then(() =>
      Promise.all([...this.map.byOwner.values()].map(({ owner }) => this.#readsFrom(owner).firstReady)),
    );
    this.firstReady.catch(() => {});
  }

  groupOf(bucket: number): number {
    return bucket;
  }

  send<T>(bucket: number, send: (client: Redis) => Promise<T>): Promise<T> {
    return this.#rerouted(this.#ofBucket(bucket), (connection) => connection.send(send));
  }

  sendForKey<T>(key: string, send: (client: Redis) => Promise<T>): Promise<T> {
    const place = { text: `the key ${key}`, owner: () => this.map.ownerOfKey(key) };
    return this.#rerouted(place, (connection) => connection.send(send));
  }

  run(
    bucket: number,
    script: Script,
    keys: readonly string[],
    args: readonly (string | number)[],
  ): Promise<unknown> {
    return this.#rerouted(this.#ofBucket(bucket), async (connection) => {
      try {
        return await connection.run(script, keys, args);
      } catch (error) {
        connection.noteError(error);
        throw error;
      }
    });
  }

  availability(bucket: number): Availability {
    return this.#availabilityOf(this.#ofBucket(bucket));
  }

  open(name: string, bucket: number, prepare?: Prepare): RedisConnection {
    let connectedTo: Owner | undefined;
    return this.#connect(name, prepare, {
      address: () => {
        connectedTo = this.map.ownerOf(bucket);
        return connectedTo?.address;
      },
      onMoved: (listener) =>
        this.map.onChange(() => {
          if (this.map.ownerOf(bucket)?.name !== connectedTo?.name) listener();
        }),
      onErrorReply: (text) => this.map.noteErrorReply(text, connectedTo?.address),
    });
  }

  /** Opens a connection to one node. */
  openTo(name: string, owner: Owner, prepare?: Prepare): RedisConnection {
    return this.#connect(`${name}@${owner.name}`, prepare, {
      address: () => owner.address,
      onMoved: () => () => {},
      onErrorReply: (text) => this.map.noteErrorReply(text, owner.address),
    });
  }

  /** Not read again once every bucket has a marker: the marker names the data that its bucket belongs to. */
  async checkLayout(_client: Redis, expectedData?: string): Promise<Layout> {
    if (this.#layout !== undefined) {
      return this.#layout;
    }
    const layout = await this.#rerouted(this.#ofBucket(0), ({ client }) =>
      checkLayout(client, this.#options.keys, expectedData),
    );
    if (layout.hasMarkers) {
      this.#layout = layout;
    }
    return layout;
  }

  async recordMarkers(): Promise<void> {
    await this.#rerouted(this.#ofBucket(0), ({ client }) => recordMarkers(client, this.#options.keys));
  }

  get unreadyReason(): string | undefined {
    const connections = [...this.map.byOwner.values()].map(({ owner }) => this.#readsFrom(owner));
    return connections.some(({ isReady }) => isReady)
      ? undefined
      : (connections[0]?.unreadyReason ?? "No node of the Redis Cluster is known");
  }

  get isClosed(): boolean {
    return this.map.isClosed;
  }

  /** Adds a user. Each calls `close` once, and the last one closes the connections. */
  retain(): void {
    this.#users += 1;
  }

  close(): void {
    this.#users -= 1;
    if (this.#users > 0) {
      return;
    }
    this.map.close();
    for (const connection of this.#reads.values()) {
      connection.close();
    }
  }

  #ofBucket(bucket: number): Place {
    return { text: `bucket ${bucket}`, owner: () => this.map.ownerOf(bucket) };
  }

  #availabilityOf(place: Place): Availability {
    const current = () => this.#readsOf(place);
    const { map } = this;
    const unknownSince = this.#unknownSince;
    return {
      get isReady() {
        return current()?.isReady ?? false;
      },
      get unavailability() {
        const connection = current();
        const isLong = performance.now() - unknownSince > UNKNOWN_MS_MAX;
        return connection === undefined && isLong ? unassigned(place.text) : connection?.unavailability;
      },
      onceReady(then) {
        once(then, (ready) => {
          current()?.onceReady(ready);
          return map.onChange(ready);
        });
      },
    };
  }

  /** Calls `send` with the connection to the primary, and again for as long as the node does not serve the slot. */
  async #rerouted<T>(place: Place, send: (connection: RedisConnection) => Promise<T>): Promise<T> {
    const deadline = performance.now() + RESPONSE_MS_MAX;
    for (;;) {
      const connection = await this.#whenReady(place, deadline);
      try {
        return await send(connection);
      } catch (error) {
        const redirection = redirectionOf(error);
        if (redirection === undefined || this.isClosed) {
          throw error;
        }
        if (performance.now() >= deadline) {
          throw redirected(error);
        }
        if (redirection.kind !== "MOVED") {
          await pause(RETRY_MS);
        }
      }
    }
  }

  /** The connection to the primary, when it is ready. Rejects with `STORE_UNAVAILABLE` in an outage and at the deadline. */
  async #whenReady(place: Place, deadline: number): Promise<RedisConnection> {
    const availability = this.#availabilityOf(place);
    for (;;) {
      const connection = this.#readsOf(place);
      if (connection?.isReady) {
        return connection;
      }
      const error = availability.unavailability;
      if (error !== undefined || performance.now() >= deadline || this.isClosed) {
        throw error ?? unassigned(place.text);
      }
      await pause(RETRY_MS);
    }
  }

  #readsOf({ owner }: Place): RedisConnection | undefined {
    const node = owner();
    return node === undefined ? undefined : this.#readsFrom(node);
  }

  #readsFrom(owner: Owner): RedisConnection {
    let connection = this.#reads.get(owner.name);
    if (connection === undefined) {
      connection = this.openTo("reads", owner);
      this.#reads.set(owner.name, connection);
    }
    return connection;
  }

  #connect(
    name: string,
    prepare: Prepare | undefined,
    node: Pick<NonNullable<RedisEndpoint["node"]>, "address" | "onMoved" | "onErrorReply">,
  ): RedisConnection {
    const { cluster, endpoint, log, instruments } = this.#options;
    return new RedisConnection(
      name,
      {
        password: endpoint.password,
        acks: endpoint.acks,
        node: { tls: cluster.tls, username: cluster.username, ...node },
      },
      log,
      instruments,
      async (client) => {
        try {
          await checkServing(client, "cluster");
        } catch (error) {
          this.map.refresh();
          throw error;
        }
        await prepare?.(client);
      },
    );
  }

  #closeUnused(): void {
    const used = this.map.byOwner;
    for (const [name, connection] of this.#reads) {
      if (!used.has(name)) {
        connection.close();
        this.#reads.delete(name);
      }
    }
  }
}

/** The error for a caller whose command no node ran in time. */
export function redirected(error: unknown): unknown {
  const mapped = storeError(error);
  return mapped === error ? storeUnavailable(error) : mapped;
}

/** The error for a caller whose keys no node is known to serve. */
export function unassigned(place: string): InventoryError {
  return storeUnavailable(new Error(`No node of the Redis Cluster is known to serve ${place}`));
}

/** Calls `then` at the first of several events, and then removes the listener that `listen` returns. */
function once(then: () => void, listen: (first: () => void) => () => void): void {
  let isCalled = false;
  const stop = listen(() => {
    if (!isCalled) {
      isCalled = true;
      queueMicrotask(() => stop());
      then();
    }
  });
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
