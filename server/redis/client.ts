import { Redis, ReplyError } from "ioredis";
import type { Logger } from "pino";
import { InventoryError } from "../inventory/errors.ts";
import { observed, type RedisInstruments } from "./instruments.ts";
import { withResponseTimeout } from "./response-timeout.ts";
import type { Script } from "./scripts.ts";

/** A call that Redis has not answered by then is refused: within a second, as callers are promised. */
export const RESPONSE_MS_MAX = 900;
/**
 * How long a connection may owe an answer before it counts as dead and is made anew. Longer than a
 * call waits, so that a stall of this process does not look like one of Redis.
 */
const SILENCE_MS_MAX = 3_000;
const CONNECT_MS_MAX = 1_000;
/** How long a closing connection may wait for the other side before it is destroyed. */
const DISCONNECT_MS_MAX = 100;
const RECONNECT_MS_MIN = 50;
const RECONNECT_MS_MAX = 1_000;
/** After an outage of this length calls are refused at once, without waiting for Redis to come back. */
const OUTAGE_MS_UNTIL_REFUSED = 300;
/** An outage is logged once when it begins, and then at this interval. */
const OUTAGE_LOG_INTERVAL_MS = 10_000;

/** Where Redis is. The URL may carry user, password and database; `rediss:` means TLS. */
export interface RedisEndpoint {
  readonly url: string;
  readonly password?: string | undefined;
}

/** What a connection must find before it serves. Throws a `RedisRequirementError` to refuse this Redis for good. */
export type Prepare = (client: Redis) => Promise<unknown>;

/** This Redis answers, but the service must not use it: its message says why and what to do. */
export class RedisRequirementError extends Error {
  override readonly name = "RedisRequirementError";
}

/**
 * One connection to Redis that never sends a command twice by itself: what was under way when it
 * broke is rejected, and whoever sent it decides. ioredis's default would send it again, and a
 * script that had run would run twice.
 */
export class RedisConnection {
  readonly client: Redis;
  /** Resolves when the connection first serves; rejects with `RedisRequirementError`. Stays pending while Redis is away. */
  readonly firstReady: Promise<void>;
  readonly #log: Logger;
  readonly #name: string;
  readonly #prepare: Prepare;
  readonly #instruments: RedisInstruments;
  readonly #first = Promise.withResolvers<void>();
  #readyWaiters: (() => void)[] = [];
  #isReady = false;
  #outageSince: number | undefined = performance.now();
  #outageLoggedAt: number | undefined;
  #closed = false;
  #cause: Error | undefined;

  /** Connects at once, and again whenever the connection breaks. `prepare` runs on every new connection before it serves. */
  constructor(
    name: string,
    endpoint: RedisEndpoint,
    log: Logger,
    instruments: RedisInstruments = {},
    prepare: Prepare = async () => {},
  ) {
    this.#name = name;
    this.#log = log;
    this.#prepare = prepare;
    this.#instruments = instruments;
    instruments.metrics?.addConnection(name, () => this.#isReady);
    this.firstReady = this.#first.promise;
    this.firstReady.catch(() => {});
    this.client = new Redis(endpoint.url, {
      connectionName: `inventory-${name}`,
      ...(endpoint.password === undefined ? {} : { password: endpoint.password }),
      maxRetriesPerRequest: 0,
      enableOfflineQueue: false,
      connectTimeout: CONNECT_MS_MAX,
      socketTimeout: SILENCE_MS_MAX,
      disconnectTimeout: DISCONNECT_MS_MAX,
      retryStrategy: (attempt) => Math.min(RECONNECT_MS_MIN * 2 ** Math.min(attempt, 10), RECONNECT_MS_MAX),
      // A replica that was the primary before a failover: look for the primary anew.
      reconnectOnError: (error) => error.message.startsWith("READONLY"),
    });
    this.client.on("ready", () => void this.#onReady());
    this.client.on("close", () => this.#onClose());
    this.client.on("error", (error) => {
      this.#cause = error;
    });
  }

  get isReady(): boolean {
    return this.#isReady;
  }

  /** Whether the connection has been away for so long that a call should not wait for it. */
  get isLongGone(): boolean {
    return (
      this.#closed ||
      (this.#outageSince !== undefined && performance.now() - this.#outageSince > OUTAGE_MS_UNTIL_REFUSED)
    );
  }

  /** Why the connection does not serve, or `undefined` if it does. */
  get unreadyReason(): string | undefined {
    if (this.#isReady) {
      return undefined;
    }
    return this.#cause === undefined ? "Redis is not connected" : `Redis is away: ${this.#cause.message}`;
  }

  /** Calls `then` once, when the connection next serves. */
  onceReady(then: () => void): void {
    this.#readyWaiters.push(then);
  }

  /** Asks something of Redis. Rejects with `STORE_UNAVAILABLE`, within a second where it does not answer. */
  ask<T>(send: (client: Redis) => Promise<T>): Promise<T> {
    return observed(this.#instruments, this.#name, () => this.#ask(send));
  }

  async #ask<T>(send: (client: Redis) => Promise<T>): Promise<T> {
    if (!this.#isReady) {
      throw storeUnavailable(this.#cause);
    }
    const { promise: silence, reject } = Promise.withResolvers<never>();
    const timer = withResponseTimeout(RESPONSE_MS_MAX, () =>
      reject(storeUnavailable(new Error(`No answer within ${RESPONSE_MS_MAX} ms`))),
    );
    try {
      return await Promise.race([send(this.client), silence]);
    } catch (error) {
      throw storeError(error);
    } finally {
      timer.cancel();
    }
  }

  /** Runs a script by its hash, and by its text where this Redis does not know it yet. */
  async run(script: Script, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown> {
    try {
      return await this.client.evalsha(script.sha1, keys.length, ...keys, ...args);
    } catch (error) {
      // NOSCRIPT is an answer: nothing ran.
      if (isReply(error) && error.message.startsWith("NOSCRIPT")) {
        return await this.client.eval(script.source, keys.length, ...keys, ...args);
      }
      throw error;
    }
  }

  close(): void {
    this.#closed = true;
    this.#isReady = false;
    this.client.disconnect();
  }

  async #onReady(): Promise<void> {
    try {
      await this.#prepare(this.client);
    } catch (error) {
      this.#cause = error instanceof Error ? error : undefined;
      if (error instanceof RedisRequirementError) {
        this.#first.reject(error);
        this.#log.error({ connection: this.#name }, error.message);
      } else {
        this.#log.warn({ connection: this.#name, err: error }, "Redis broke off while it was looked at");
        this.client.disconnect(true);
      }
      return;
    }
    if (this.client.status !== "ready") {
      return;
    }
    if (this.#outageLoggedAt !== undefined) {
      const outageMs = Math.round(performance.now() - (this.#outageSince ?? this.#outageLoggedAt));
      this.#log.info({ connection: this.#name, outageMs }, "Redis is back");
      this.#instruments.metrics?.reconnected(this.#name);
    }
    this.#outageSince = undefined;
    this.#outageLoggedAt = undefined;
    this.#cause = undefined;
    this.#isReady = true;
    this.#first.resolve();
    for (const then of this.#readyWaiters.splice(0)) {
      then();
    }
  }

  #onClose(): void {
    this.#isReady = false;
    if (this.#closed) {
      return;
    }
    const now = performance.now();
    this.#outageSince ??= now;
    if (this.#outageLoggedAt === undefined || now - this.#outageLoggedAt >= OUTAGE_LOG_INTERVAL_MS) {
      this.#outageLoggedAt = now;
      this.#log.warn({ connection: this.#name, err: this.#cause }, "Redis is away; reconnecting");
    }
  }
}

/** Whether Redis itself answered with an error, as against a connection that broke. */
export function isReply(error: unknown): error is Error {
  return error instanceof ReplyError;
}

/** Replies that tell of the server's state rather than of a bug in a command. */
const STATE_REPLIES = [
  "LOADING",
  "READONLY",
  "OOM",
  "MISCONF",
  "MASTERDOWN",
  "NOREPLICAS",
  "BUSY",
  "CLUSTERDOWN",
];

/** Whether an error reply tells of the server's state. */
export function isStateReply(message: string): boolean {
  return STATE_REPLIES.some((state) => message.startsWith(state));
}

/** What to throw for a failed command: the store is unavailable, or the error as it is where it is a bug. */
export function storeError(error: unknown): unknown {
  if (error instanceof InventoryError) {
    return error;
  }
  if (isReply(error) && !isStateReply(error.message)) {
    return error;
  }
  return storeUnavailable(error);
}

/** The refusal while Redis does not answer. Whether a mutation happened is then unknown. */
export function storeUnavailable(cause?: unknown): InventoryError {
  return new InventoryError("STORE_UNAVAILABLE", "The stock store does not answer; try again shortly", {
    cause,
  });
}
