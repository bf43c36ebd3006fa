import type { RedisOptions } from "ioredis";

/** Address and credentials of Redis: one server, or a primary that Sentinels name. */
export interface RedisEndpoint {
  /** Where Redis is. It may carry user, password and database; `rediss:` means TLS. Absent with `sentinel`. */
  readonly url?: string | undefined;
  readonly password?: string | undefined;
  readonly sentinel?: SentinelEndpoint | undefined;
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

export interface HostAndPort {
  readonly host: string;
  readonly port: number;
}

/** Connection timeout, ms. */
export const CONNECT_MS_MAX = 1_000;

/** The part of ioredis's options that says where to connect, besides the URL. */
export function addressOptions({ password, sentinel }: RedisEndpoint): Omit<RedisOptions, "replyMapping"> {
  const credentials = password === undefined ? {} : { password };
  if (sentinel === undefined) {
    return credentials;
  }
  const { addresses, masterName, password: sentinelPassword, tls, nodeUsername } = sentinel;
  return {
    ...credentials,
    ...(nodeUsername !== undefined && { username: nodeUsername }),
    sentinels: addresses.map((address) => ({ ...address })),
    name: masterName,
    role: "master",
    ...(sentinelPassword !== undefined && { sentinelPassword }),
    // A frozen Sentinel must not hold up the others.
    sentinelCommandTimeout: CONNECT_MS_MAX,
    ...(tls && { tls: {}, sentinelTLS: {}, enableTLSForSentinelMode: true }),
  };
}

/** What an operator may read of the address: no credentials. */
export function describeEndpoint({ url, sentinel }: RedisEndpoint): string {
  if (sentinel !== undefined) {
    const addresses = sentinel.addresses.map(({ host, port }) => `${host}:${port}`).join(", ");
    return `the primary "${sentinel.masterName}" of the Sentinels ${addresses}`;
  }
  return url === undefined ? "?" : new URL(url).host;
}
