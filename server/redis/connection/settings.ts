import type { HostAndPort, RedisEndpoint } from "./endpoint.ts";

/** The environment variables, parsed one by one. */
export interface RedisVariables {
  readonly REDIS_URL?: string | undefined;
  readonly REDIS_HOST?: string | undefined;
  readonly REDIS_PORT: number;
  readonly REDIS_USERNAME?: string | undefined;
  readonly REDIS_PASSWORD?: string | undefined;
  readonly REDIS_TLS: boolean;
  readonly REDIS_SENTINELS: readonly HostAndPort[];
  readonly REDIS_MASTER_NAME: string;
  readonly REDIS_CLUSTER: readonly HostAndPort[];
  readonly REDIS_SENTINEL_PASSWORD?: string | undefined;
  readonly REDIS_ACKS: number;
}

/** `host:port,host:port`, an IPv6 address in brackets. Throws on anything else. */
export function parseAddresses(text: string): HostAndPort[] {
  return text.split(",").map((address) => {
    const url = URL.parse(`redis://${address.trim()}`);
    if (url === null || url.port === "" || url.hostname === "" || url.host !== address.trim()) {
      throw new TypeError(`${JSON.stringify(address)} is not host:port`);
    }
    return { host: url.hostname.replace(/^\[|\]$/g, ""), port: Number(url.port) };
  });
}

/**
 * REDIS_CLUSTER, else REDIS_SENTINELS, else REDIS_URL, else REDIS_HOST with its port, as the Go service had them; `undefined` if
 * none is set. Appends errors to `faults`.
 */
export function readRedisEndpoint(env: RedisVariables, faults: string[]): RedisEndpoint | undefined {
  const { REDIS_URL: url, REDIS_HOST: host, REDIS_PASSWORD: password, REDIS_ACKS: acks } = env;
  if (env.REDIS_CLUSTER.length > 0) {
    const others = {
      REDIS_URL: url,
      REDIS_HOST: host,
      REDIS_SENTINELS: env.REDIS_SENTINELS.length > 0 ? "set" : undefined,
    };
    for (const [name, value] of Object.entries(others)) {
      if (value !== undefined) {
        faults.push(
          `${name} and REDIS_CLUSTER are both set; the nodes of the Cluster name its primaries, so unset ${name}`,
        );
      }
    }
    return {
      password,
      acks,
      cluster: { addresses: env.REDIS_CLUSTER, tls: env.REDIS_TLS, username: env.REDIS_USERNAME },
    };
  }
  if (env.REDIS_SENTINELS.length > 0) {
    for (const [name, value] of Object.entries({ REDIS_URL: url, REDIS_HOST: host })) {
      if (value !== undefined) {
        faults.push(
          `${name} and REDIS_SENTINELS are both set; the Sentinels name the primary, so unset ${name}`,
        );
      }
    }
    return {
      password,
      acks,
      sentinel: {
        addresses: env.REDIS_SENTINELS,
        masterName: env.REDIS_MASTER_NAME,
        password: env.REDIS_SENTINEL_PASSWORD,
        tls: env.REDIS_TLS,
        nodeUsername: env.REDIS_USERNAME,
      },
    };
  }
  if (url !== undefined) {
    return { url, password, acks };
  }
  if (host !== undefined) {
    const name = host.includes(":") ? `[${host}]` : host;
    return { url: `redis://${name}:${env.REDIS_PORT}`, password, acks };
  }
  return undefined;
}
