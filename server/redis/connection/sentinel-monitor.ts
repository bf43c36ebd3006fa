import { Redis, type RedisOptions } from "ioredis";
import type { Logger } from "pino";
import { CONNECT_MS_MAX, type HostAndPort, type SentinelEndpoint } from "./endpoint.ts";

const RECONNECT_MS_MIN = 100;
const RECONNECT_MS_MAX = 2_000;

/** A connection to one Sentinel, which reconnects until it is closed. The caller listens to its errors. */
export function connectToSentinel(
  address: HostAndPort,
  { password, tls }: SentinelEndpoint,
  options: Pick<RedisOptions, "commandTimeout"> = {},
): Redis {
  return new Redis({
    ...address,
    ...(password !== undefined && { password }),
    ...(tls && { tls: {} }),
    connectionName: "inventory-sentinel",
    connectTimeout: CONNECT_MS_MAX,
    enableReadyCheck: false,
    maxRetriesPerRequest: null,
    retryStrategy: (attempt) => Math.min(RECONNECT_MS_MIN * 2 ** Math.min(attempt, 10), RECONNECT_MS_MAX),
    ...options,
  });
}

const monitors = new WeakMap<SentinelEndpoint, SentinelMonitor>();

/** Calls `listener` at every failover, until the returned function is called. Connections to one endpoint share a monitor. */
export function onFailover(endpoint: SentinelEndpoint, log: Logger, listener: () => void): () => void {
  let monitor = monitors.get(endpoint);
  if (monitor === undefined) {
    monitor = new SentinelMonitor(endpoint, log);
    monitors.set(endpoint, monitor);
  }
  return monitor.listen(listener, () => monitors.delete(endpoint));
}

/**
 * Subscribes to every Sentinel, and reports a failover as soon as one announces it. Without this, a connection to a former
 * primary that still answers, as it does on the minority side of a partition, would be kept.
 */
class SentinelMonitor {
  readonly #clients: readonly Redis[];
  readonly #masterName: string;
  readonly #log: Logger;
  readonly #listeners = new Set<() => void>();
  #primary: string | undefined;

  constructor(endpoint: SentinelEndpoint, log: Logger) {
    this.#masterName = endpoint.masterName;
    this.#log = log;
    this.#clients = endpoint.addresses.map((address) => this.#subscribe(address, endpoint));
  }

  /** Adds a listener. The returned function removes it, and closes the monitor with the last one. */
  listen(listener: () => void, onClosed: () => void): () => void {
    this.#listeners.add(listener);
    return () => {
      if (this.#listeners.delete(listener) && this.#listeners.size === 0) {
        onClosed();
        for (const client of this.#clients) {
          client.disconnect();
        }
      }
    };
  }

  #subscribe(address: HostAndPort, endpoint: SentinelEndpoint): Redis {
    const client = connectToSentinel(address, endpoint);
    client.on("error", (err) => this.#log.debug({ err, sentinel: address }, "A Sentinel is unreachable"));
    client.on("message", (_channel, message: string) => this.#onMessage(message));
    client.subscribe("+switch-master").catch(() => undefined);
    return client;
  }

  /** `<name> <old host> <old port> <new host> <new port>` (Redis documentation, "High availability with Redis Sentinel"). */
  #onMessage(message: string): void {
    const [name, , , host = "", port = ""] = message.split(" ");
    const primary = `${host}:${port}`;
    // Each Sentinel announces the same failover.
    if (name !== this.#masterName || primary === this.#primary) {
      return;
    }
    this.#primary = primary;
    this.#log.warn({ primary }, "The Sentinels have promoted another primary; reconnecting to it");
    for (const listener of [...this.#listeners]) {
      listener();
    }
  }
}
