import { Redis, type RedisOptions } from "ioredis";
import type { Logger } from "pino";
import type { InventoryError } from "../../inventory/errors.ts";
import { observed, type RedisInstruments } from "../instruments.ts";
import type { Script } from "../scripts.ts";
import { addressOptions } from "./connection-options.ts";
import { CONNECT_MS_MAX, DISCONNECT_MS_MAX, type RedisEndpoint } from "./endpoint.ts";
import {
  errorReplyKind,
  isErrorReply,
  refusalOf,
  storeError,
  storeRefused,
  storeUnavailable,
} from "./error-replies.ts";
import { readRejection, reportProtectedMode } from "./rejection.ts";
import { withResponseTimeout } from "./response-timeout.ts";
import { onFailover } from "./sentinel-monitor.ts";

/** Response timeout of one call. Callers are promised a refusal within a second. */
export const RESPONSE_MS_MAX = 900;
/**
 * A connection on which a reply is overdue for this long is closed and reconnected. Longer than
 * `RESPONSE_MS_MAX`, so that a stall of this process is not mistaken for a stall of Redis.
 */
const SOCKET_TIMEOUT_MS = 3_000;
/** Interval between two checks of a Redis that does not meet a requirement. */
const REQUIREMENT_RETRY_MS = 1_000;
const RECONNECT_MS_MIN = 50;
/** Short, so that reads are fresh within a second after Redis is available again. */
const RECONNECT_MS_MAX = 500;
/** After an outage of this length calls are rejected at once instead of waiting for a reconnect. */
const OUTAGE_MS_UNTIL_REFUSED = 300;
/** An outage is logged when it begins, and then at this interval; a refusal likewise. */
const OUTAGE_LOG_INTERVAL_MS = 10_000;

function createClient(endpoint: RedisEndpoint, options: Omit<RedisOptions, "replyMapping">): Redis {
  const all = { ...addressOptions(endpoint), ...options };
  return endpoint.url === undefined ? new Redis(all) : new Redis(endpoint.url, all);
}

/** Runs on each new connection before it serves. Rejects with `RedisRequirementError` to refuse this Redis permanently. */
export type Prepare = (client: Redis) => Promise<unknown>;

/** Redis is reachable, but does not meet a requirement of the service. The message says which, and what to do. */
export class RedisRequirementError extends Error {
  override readonly name = "RedisRequirementError";
}

/**
 * One connection to Redis that never resends a command. Commands in flight when the connection breaks
 * are rejected, and the caller decides whether to retry. By default ioredis resends them, and a script
 * that ran before its reply was lost would run twice.
 */
export class RedisConnection {
  readonly client: Redis;
  /** Resolves when the connection first serves. Rejects with `RedisRequirementError`. Pending while Redis is unreachable. */
  readonly firstReady: Promise<void>;
  readonly #log: Logger;
  readonly #name: string;
  readonly #prepare: Prepare;
  readonly #instruments: RedisInstruments;
  readonly #stopListening: (() => void) | undefined;
  readonly #onErrorReply: ((text: string) => void) | undefined;
  readonly #first = Promise.withResolvers<void>();
  #readyWaiters: (() => void)[] = [];
  #isReady = false;
  #hasServed = false;
  #outageSince: number | undefined = performance.now();
  #outageLoggedAt: number | undefined;
  #requirementLoggedAt = Number.NEGATIVE_INFINITY;
  readonly #readiness = () => this.#isReady;
  #closed = false;
  #cause: Error | undefined;
  /** The error reply with which Redis rejects the connection. */
  #rejection: string | undefined;
  #isReadingRejection = false;
  /** When a refusal was last logged, by its kind. */
  readonly #refusalsLoggedAt = new Map<string, number>();
  readonly #notedErrors = new WeakSet<Error>();

  /** Connects immediately, and reconnects whenever the connection breaks. */
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
    instruments.metrics?.addConnection(name, this.#readiness);
    this.firstReady = this.#first.promise;
    this.firstReady.catch(() => {});
    this.client = createClient(endpoint, {
      connectionName: `inventory-${name}`,
      maxRetriesPerRequest: 0,
      enableOfflineQueue: false,
      // `prepare` checks more, and reports what it finds; ioredis's own check writes to the console.
      enableReadyCheck: false,
      connectTimeout: CONNECT_MS_MAX,
      socketTimeout: SOCKET_TIMEOUT_MS,
      disconnectTimeout: DISCONNECT_MS_MAX,
      retryStrategy: (attempt) => Math.min(RECONNECT_MS_MIN * 2 ** Math.min(attempt, 10), RECONNECT_MS_MAX),
      // READONLY: a replica that was the primary before a failover. Reconnect to find the new primary.
      reconnectOnError: (error) => error.message.startsWith("READONLY"),
    });
    this.#stopListening =
      endpoint.node?.onMoved(() => this.reconnect()) ??
      (endpoint.sentinel && onFailover(endpoint.sentinel, log, () => this.reconnect()));
    this.#onErrorReply = endpoint.node?.onErrorReply;
    reportProtectedMode(this.client, (text) => this.#onRejection(text));
    this.client.on("ready", () => void this.#onReady());
    this.client.on("close", () => this.#onClose());
    this.client.on("end", () => this.#onEnd());
    this.client.on("error", (error) => {
      this.#cause = error;
    });
  }

  get isReady(): boolean {
    return this.#isReady;
  }

  /** The error for a call if the outage has lasted so long that calls should not wait for a reconnect. */
  get unavailability(): InventoryError | undefined {
    const isLong =
      this.#outageSince !== undefined && performance.now() - this.#outageSince > OUTAGE_MS_UNTIL_REFUSED;
    return this.#closed || isLong ? this.#notReady() : undefined;
  }

  /** Why the connection does not serve, or `undefined` if it does. */
  get unreadyReason(): string | undefined {
    if (this.#isReady) {
      return undefined;
    }
    const cause = this.#rejection ?? this.#cause?.message;
    return cause === undefined ? "Redis is not connected" : `Redis is unavailable: ${cause}`;
  }

  /** Calls `then` once, when the connection next becomes ready. */
  onceReady(then: () => void): void {
    this.#readyWaiters.push(then);
  }

  /** Sends one command or pipeline. Rejects with `STORE_UNAVAILABLE`, after `RESPONSE_MS_MAX` at the latest. */
  send<T>(send: (client: Redis) => Promise<T>): Promise<T> {
    return observed(this.#instruments, this.#name, () => this.#send(send));
  }

  async #send<T>(send: (client: Redis) => Promise<T>): Promise<T> {
    if (!this.#isReady) {
      throw this.#notReady();
    }
    const { promise: timeout, reject } = Promise.withResolvers<never>();
    const timer = withResponseTimeout(RESPONSE_MS_MAX, () =>
      reject(storeUnavailable(new Error(`No reply within ${RESPONSE_MS_MAX} ms`))),
    );
    try {
      return await Promise.race([send(this.client), timeout]);
    } catch (error) {
      this.noteError(error);
      throw storeError(error);
    } finally {
      timer.cancel();
    }
  }

  /** Runs a script by its hash (EVALSHA), and by its source (EVAL) if Redis has not cached it. */
  run(script: Script, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown> {
    return this.sendScript(script, (command, text) =>
      this.client[command](text, keys.length, ...keys, ...args),
    );
  }

  /** Sends a script by its hash, and again by its source if Redis has not cached it. */
  async sendScript(
    script: Script,
    send: (command: "evalsha" | "eval", text: string) => Promise<unknown>,
  ): Promise<unknown> {
    try {
      return await send("evalsha", script.sha1);
    } catch (error) {
      // NOSCRIPT is a reply: nothing ran, so sending the source is safe.
      if (isErrorReply(error) && error.message.startsWith("NOSCRIPT")) {
        this.noteError(error);
        return await send("eval", script.source);
      }
      throw error;
    }
  }

  /** Counts an error reply, and logs its text if it is a refusal. Other errors, and those noted before, are ignored. */
  noteError(error: unknown): void {
    if (isErrorReply(error) && !this.#notedErrors.has(error)) {
      this.#notedErrors.add(error);
      this.noteErrorReply(error.message);
    }
  }

  /** As `noteError`, for an error reply inside the reply of a script. */
  noteErrorReply(text: string): void {
    this.#instruments.metrics?.errorReply(errorReplyKind(text));
    this.#onErrorReply?.(text);
    const refusal = refusalOf(text);
    if (refusal === undefined) {
      return;
    }
    const now = performance.now();
    const loggedAt = this.#refusalsLoggedAt.get(refusal);
    if (loggedAt === undefined || now - loggedAt >= OUTAGE_LOG_INTERVAL_MS) {
      this.#refusalsLoggedAt.set(refusal, now);
      this.#log.error({ connection: this.#name, refusal }, `Redis refuses commands: ${text}`);
    }
  }

  /** Drops the connection and opens it again, to the primary as it is now. */
  reconnect(): void {
    if (!this.#closed) {
      this.#isReady = false;
      this.client.disconnect(true);
    }
  }

  close(): void {
    this.#closed = true;
    this.#isReady = false;
    this.#instruments.metrics?.removeConnection(this.#name, this.#readiness);
    this.#stopListening?.();
    this.client.disconnect();
  }

  #notReady(): InventoryError {
    const text = this.#rejection ?? this.#cause?.message ?? "";
    const refusal = refusalOf(text);
    return refusal === undefined ? storeUnavailable(this.#cause) : storeRefused(refusal, new Error(text));
  }

  async #onReady(): Promise<void> {
    try {
      await this.#prepare(this.client);
    } catch (error) {
      this.#cause = error instanceof Error ? error : undefined;
      if (error instanceof RedisRequirementError) {
        this.#first.reject(error);
        this.#logRequirement(error.message);
        // A server that starts exits with this error. One that runs waits for the data to come back.
        setTimeout(() => this.reconnect(), REQUIREMENT_RETRY_MS).unref();
      } else {
        this.noteError(error);
        this.#logOutage("Could not check the requirements on Redis; reconnecting");
        this.client.disconnect(true);
      }
      return;
    }
    if (this.client.status !== "ready") {
      return;
    }
    if (this.#outageLoggedAt !== undefined) {
      const outageMs = Math.round(performance.now() - (this.#outageSince ?? this.#outageLoggedAt));
      this.#log.info({ connection: this.#name, outageMs }, "Reconnected to Redis");
      this.#instruments.metrics?.reconnected(this.#name);
    }
    this.#outageSince = undefined;
    this.#outageLoggedAt = undefined;
    this.#cause = undefined;
    this.#rejection = undefined;
    this.#isReady = true;
    this.#hasServed = true;
    this.#first.resolve();
    for (const then of this.#readyWaiters.splice(0)) {
      then();
    }
  }

  #logRequirement(message: string): void {
    const now = performance.now();
    if (now - this.#requirementLoggedAt >= OUTAGE_LOG_INTERVAL_MS) {
      this.#requirementLoggedAt = now;
      this.#log.error({ connection: this.#name }, message);
    }
  }

  #onClose(): void {
    const wasReady = this.#isReady;
    this.#isReady = false;
    if (this.#closed) {
      return;
    }
    this.noteError(this.#cause);
    if (!wasReady && !isErrorReply(this.#cause)) {
      void this.#readRejection();
    }
    this.#logOutage("Disconnected from Redis; reconnecting");
  }

  /** ioredis does not reconnect if it is disconnected while it asks the Sentinels for the primary. */
  #onEnd(): void {
    setTimeout(() => {
      if (!this.#closed) {
        this.client.connect().catch(() => {});
      }
    }, RECONNECT_MS_MIN).unref();
  }

  #logOutage(message: string): void {
    const now = performance.now();
    this.#outageSince ??= now;
    if (!this.#hasServed) {
      // The server reports at its start that it cannot reach Redis.
      this.#outageLoggedAt ??= now;
    }
    if (this.#outageLoggedAt === undefined || now - this.#outageLoggedAt >= OUTAGE_LOG_INTERVAL_MS) {
      this.#outageLoggedAt = now;
      this.#log.warn({ connection: this.#name, err: this.#cause }, message);
    }
  }

  /** Determines whether and why Redis rejects connections. This connection itself may see only a reset. */
  async #readRejection(): Promise<void> {
    if (this.#isReadingRejection) {
      return;
    }
    this.#isReadingRejection = true;
    const rejection = await readRejection(this.client);
    this.#isReadingRejection = false;
    if (!this.#isReady && !this.#closed) {
      this.#onRejection(rejection);
    }
  }

  #onRejection(text: string | undefined): void {
    this.#rejection = text;
    if (text !== undefined) {
      this.noteErrorReply(text);
    }
  }
}
