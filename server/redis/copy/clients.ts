import { Cluster, Redis } from "ioredis";
import type { HostAndPort } from "../connection/endpoint.ts";

/** Begins the names of the connections of servers (`CLIENT SETNAME`). */
const SERVER_CONNECTIONS = "inventory-";
const CONNECTION_NAME = "copy-ledger";
const CONNECT_MS_MAX = 5_000;
const RETRIES_MAX = 2;

export type Client = Redis | Cluster;

/** Nodes of a Cluster, and what is needed to log in to each. */
export interface ClusterAddress {
  readonly nodes: readonly HostAndPort[];
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  readonly tls: boolean;
}

const options = {
  connectTimeout: CONNECT_MS_MAX,
  maxRetriesPerRequest: RETRIES_MAX,
  // Commands of one turn of the event loop share a round trip.
  enableAutoPipelining: true,
} as const;

/** Connects to one Redis. The connection ends with the first failure, which the command reports. */
export async function openRedis(url: string): Promise<Redis> {
  const client = new Redis(url, {
    ...options,
    connectionName: CONNECTION_NAME,
    lazyConnect: true,
    retryStrategy: () => null,
  });
  client.on("error", () => undefined);
  await client.connect();
  return client;
}

/**
 * Connects to a Redis Cluster. This client may send a command twice after a broken connection. The copy bears that: its
 * writes set absolute values, and an entry of a stream is refused the second time, which ends the copy.
 */
export async function openCluster({ nodes, username, password, tls }: ClusterAddress): Promise<Cluster> {
  const client = new Cluster(
    nodes.map((node) => ({ ...node })),
    {
      ...options,
      lazyConnect: true,
      clusterRetryStrategy: () => null,
      redisOptions: {
        connectTimeout: CONNECT_MS_MAX,
        connectionName: CONNECTION_NAME,
        ...(username !== undefined && { username }),
        ...(password !== undefined && { password }),
        ...(tls && { tls: {} }),
      },
    },
  );
  client.on("error", () => undefined);
  await client.connect();
  return client;
}

/** The nodes that hold keys. */
export function primariesOf(client: Client): readonly Redis[] {
  return client instanceof Cluster ? client.nodes("master") : [client];
}

/** The names of the connections that servers have to these nodes. */
export async function serverConnections(client: Client): Promise<string[]> {
  const lists = await Promise.all(primariesOf(client).map((node) => node.client("LIST")));
  return lists.flatMap((list) =>
    [...String(list).matchAll(/\bname=(\S+)/g)]
      .map(([, name = ""]) => name)
      .filter((name) => name.startsWith(SERVER_CONNECTIONS)),
  );
}
