import { type Logger, pino } from "pino";
import type { InventoryStore, ReservationStore } from "../../server/inventory/store.ts";
import { parseAddresses } from "../../server/redis/connection/settings.ts";
import { Keys } from "../../server/redis/keys.ts";
import { ShardedReservations } from "../../server/redis/sharded/reservations.ts";
import { RedisStore } from "../../server/redis/store.ts";
import type { MakeStore, StoreSettings, StoreUnderTest } from "../inventory/store-contract.ts";
import { type RedisCluster, startRedisCluster } from "../support/redis-cluster.ts";
import { ClusterState } from "./cluster-state.ts";

/** Fewer than the default of a Cluster, so that it is cheap to read all; more than its primaries. */
const BUCKETS = 16;
const START_MS_MAX = 10_000;
const silent = pino({ level: "silent" });

/** Replicas of each primary, one of which acknowledges each mutation: `CLUSTER_REPLICAS=1` for 3 + 3 nodes. */
export const REPLICAS = Number(process.env["CLUSTER_REPLICAS"] ?? 0);
export const ACKS = Math.min(REPLICAS, 1);

/** Starts three primaries with `CLUSTER_REPLICAS` replicas each. Stores on it are opened with `ACKS`. */
export function startCluster(): Promise<RedisCluster> {
  return startRedisCluster({ appendonly: "no", replicas: REPLICAS });
}

/** A store on a Cluster, and the state of its buckets as Redis has it. */
export interface ClusterStore {
  readonly store: RedisStore;
  readonly keys: Keys;
  readonly state: ClusterState;
}

/** Opens a store on a running Cluster. `addresses`: some of its nodes, or proxies of them. */
export async function openClusterStore(
  cluster: RedisCluster,
  settings: StoreSettings & {
    readonly acks?: number;
    readonly log?: Logger;
    readonly addresses?: string;
  } = {},
): Promise<ClusterStore> {
  const { acks, addresses = cluster.addresses, log = silent, ...others } = settings;
  const keys = new Keys(BUCKETS);
  const endpoint = { cluster: { addresses: parseAddresses(addresses), tls: false }, acks };
  const store = new RedisStore({ endpoint, keys, log, ...others });
  await store.start(START_MS_MAX);
  return { store, keys, state: new ClusterState(cluster, keys) };
}

/**
 * The same store, except that calls on reservations resolve once their effects have reached the ledgers. The contract of a
 * Cluster lets them follow within milliseconds, and the suites of the contract read the ledgers at once.
 */
export function settling(store: RedisStore): InventoryStore {
  const settled = async <T>(call: Promise<T>): Promise<T> => {
    const [outcome] = await Promise.allSettled([call]);
    if (store.reservations instanceof ShardedReservations) await store.reservations.settled();
    if (outcome.status === "rejected") throw outcome.reason;
    return outcome.value;
  };
  const { reservations } = store;
  const settlingReservations: ReservationStore = {
    reserve: (request) => settled(reservations.reserve(request)),
    commit: (request) => settled(reservations.commit(request)),
    release: (...args) => settled(reservations.release(...args)),
    extend: (...args) => settled(reservations.extend(...args)),
    return: (request) => settled(reservations.return(request)),
    expireDue: (limit) => settled(reservations.expireDue(limit)),
    findKnown: (ids) => reservations.findKnown(ids),
    get: (id) => reservations.get(id),
    list: (page) => reservations.list(page),
    listOfProduct: (productId, page) => reservations.listOfProduct(productId, page),
    countActive: () => reservations.countActive(),
  };
  return new Proxy(store, {
    get: (target, name) => {
      if (name === "reservations") return settlingReservations;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** Clusters for stores with data of their own. One that was closed is emptied and used again. */
export class ClusterPool implements AsyncDisposable {
  readonly #free: RedisCluster[] = [];
  readonly #all: RedisCluster[] = [];

  readonly makeStore: MakeStore = async (settings): Promise<StoreUnderTest> => {
    const cluster = this.#free.pop() ?? (await this.#start());
    const { store } = await openClusterStore(cluster, { ...settings, acks: ACKS });
    return {
      store: settling(store),
      recordsRefusedHolds: true,
      close: async () => {
        await store.close();
        await Promise.all((await cluster.primaries()).map(({ direct }) => direct.flushall()));
        this.#free.push(cluster);
      },
    };
  };

  async #start(): Promise<RedisCluster> {
    const cluster = await startCluster();
    this.#all.push(cluster);
    return cluster;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#all.map((cluster) => cluster[Symbol.asyncDispose]()));
  }
}
