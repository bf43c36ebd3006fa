/** Address and credentials of Redis: one server, a primary that Sentinels name, or a Cluster. */
export interface RedisEndpoint {
  /** Where Redis is. It may carry user, password and database; `rediss:` means TLS. Absent with the others below. */
  readonly url?: string | undefined;
  readonly password?: string | undefined;
  readonly sentinel?: SentinelEndpoint | undefined;
  readonly cluster?: ClusterEndpoint | undefined;
  /** One node of a Cluster. */
  readonly node?: NodeEndpoint | undefined;
  /** How many replicas must have a change before its caller gets the response; 0 unless given. */
  readonly acks?: number | undefined;
}

/** Sentinels, and the primary that they watch. */
export interface SentinelEndpoint {
  readonly addresses: readonly HostAndPort[];
  /** The name under which the Sentinels watch the primary. */
  readonly masterName: string;
  /** The Sentinels' own password. */
  readonly password?: string | undefined;
  /** TLS to the Sentinels and to the nodes that they name. */
  readonly tls: boolean;
  /** The user of the nodes, where it is not `default`. */
  readonly nodeUsername?: string | undefined;
}

/** A Redis Cluster. */
export interface ClusterEndpoint {
  /** Some of its nodes; the others are found through them. */
  readonly addresses: readonly HostAndPort[];
  readonly tls: boolean;
  /** The user of the nodes, where it is not `default`. */
  readonly username?: string | undefined;
}

/** The node of a Cluster that a connection belongs to. It may change. */
export interface NodeEndpoint extends Pick<ClusterEndpoint, "tls" | "username"> {
  /** The node to connect to. Asked at each connect. */
  address(): HostAndPort | undefined;
  /** Calls `listener` when the connection belongs to another node, until the returned function is called. */
  onMoved(listener: () => void): () => void;
  /** Called with each error reply of the node, which may say that another node serves the bucket. */
  onErrorReply(text: string): void;
}

export interface HostAndPort {
  readonly host: string;
  readonly port: number;
}

/** Connection timeout, ms. */
export const CONNECT_MS_MAX = 1_000;
/** How long a closing connection waits for the peer's FIN before it is destroyed, ms. */
export const DISCONNECT_MS_MAX = 100;

/** What an operator may read of the address: no credentials. */
export function describeEndpoint({ url, sentinel, cluster }: RedisEndpoint): string {
  if (sentinel !== undefined) {
    const addresses = sentinel.addresses.map(formatAddress).join(", ");
    return `the primary "${sentinel.masterName}" of the Sentinels ${addresses}`;
  }
  if (cluster !== undefined) {
    return `the Redis Cluster at ${cluster.addresses.map(formatAddress).join(", ")}`;
  }
  return url === undefined ? "?" : new URL(url).host;
}

/** `host:port`, an IPv6 address in brackets. */
export function formatAddress({ host, port }: HostAndPort): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
