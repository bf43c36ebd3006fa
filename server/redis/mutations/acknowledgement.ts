import type { Redis } from "ioredis";
import { InventoryError } from "../../inventory/errors.ts";
import type { RedisConnection } from "../connection/client.ts";
import { isErrorReply } from "../connection/error-replies.ts";
import type { PrimaryConfirmation } from "../connection/primaries.ts";
import type { RedisInstruments } from "../instruments.ts";
import type { Script } from "../scripts.ts";

/**
 * How long a batch waits for every online replica, ms. A failover prefers the freshest replica but does not guarantee
 * it, so each replica that has the write narrows the gap.
 */
const ALL_REPLICAS_MS_MAX = 100;
/** How much longer it waits for the replicas that it needs, ms. Both stay below the response timeout of a call. */
const NEEDED_REPLICAS_MS_MAX = 500;
/** A replica that has not acknowledged for this long does not count as online, s; as `min-replicas-max-lag`. */
export const REPLICA_LAG_SECONDS_MAX = 2;
/** Interval between two readings of the list of replicas, ms. */
const REPLICAS_REFRESH_MS = 1_000;

/** The keys and arguments of one call of a script. */
export interface ScriptCall {
  readonly keys: readonly string[];
  readonly args: readonly (string | number)[];
}

/** The primary has the change, but it is not certain that it survives a failover. */
export class NotReplicated extends InventoryError {
  constructor(reason: string) {
    super(
      "STORE_UNAVAILABLE",
      `The change was written, but ${reason}; it may be lost in a failover. Retry the request with the same ID`,
    );
  }
}

/**
 * Runs scripts and resolves when enough replicas have their writes (`WAIT`,
 * https://redis.io/docs/latest/commands/wait/). WAIT covers the writes of its own connection alone, and blocks
 * what is sent behind it. So each batch in flight needs a connection of its own, and a script whose reply depends on
 * state must write something. With `appendfsync always` a replica syncs before it sends any reply, acknowledgements
 * included, so WAIT is enough and WAITAOF is not needed.
 */
export class Acknowledgement {
  /** How many replicas must acknowledge; 0 turns waiting off. */
  readonly needed: number;
  readonly #instruments: RedisInstruments;
  readonly #confirmation: PrimaryConfirmation | undefined;
  readonly #node: string | undefined;
  #online = 0;
  /** The most replicas that were ever online. */
  #onlineMost = 0;
  #refreshedAt = Number.NEGATIVE_INFINITY;

  /** `confirmation` is asked when a replica is missing. `node` names the primary in a Cluster. */
  constructor(
    acks: number,
    confirmation: PrimaryConfirmation | undefined,
    instruments: RedisInstruments = {},
    node?: string,
  ) {
    this.needed = acks;
    this.#node = node;
    this.#instruments = instruments;
    this.#confirmation = confirmation;
  }

  /** Runs a script. Rejects with the error of ioredis, or with `NotReplicated` if too few replicas acknowledge in time. */
  async run(
    connection: RedisConnection,
    script: Script,
    keys: readonly string[],
    args: readonly (string | number)[],
  ): Promise<unknown> {
    const [outcome] = await this.runAll(connection, script, [{ keys, args }]);
    if (outcome?.status !== "fulfilled") {
      throw outcome?.reason;
    }
    return outcome.value;
  }

  /**
   * Runs a script several times in one pipeline, and then waits for the replicas once. Resolves with the outcome of each call,
   * which fails as `run` does.
   */
  async runAll(
    connection: RedisConnection,
    script: Script,
    calls: readonly ScriptCall[],
  ): Promise<PromiseSettledResult<unknown>[]> {
    const outcomes = await this.#send(connection, "evalsha", script.sha1, calls);
    // NOSCRIPT is a reply: nothing ran, so sending the source is safe.
    const unknown = outcomes.flatMap((outcome, index) => (isNoScript(outcome) ? [index] : []));
    if (unknown.length > 0) {
      const again = unknown.map((index) => calls[index] as ScriptCall);
      const sent = await this.#send(connection, "eval", script.source, again);
      for (const [position, index] of unknown.entries()) {
        connection.noteError((outcomes[index] as PromiseRejectedResult).reason);
        outcomes[index] = sent[position] as PromiseSettledResult<unknown>;
      }
    }
    return outcomes;
  }

  async #send(
    { client }: RedisConnection,
    command: "evalsha" | "eval",
    text: string,
    calls: readonly ScriptCall[],
  ): Promise<PromiseSettledResult<unknown>[]> {
    const replies = calls.map(({ keys, args }) => client[command](text, keys.length, ...keys, ...args));
    if (this.needed === 0) {
      return await Promise.allSettled(replies);
    }
    // All are sent at once. Waiting for all outcomes leaves no rejection without a handler.
    const [outcomes, [confirmed]] = await Promise.all([
      Promise.allSettled(replies),
      Promise.allSettled([this.#confirm(client)]),
    ]);
    return confirmed.status === "fulfilled"
      ? outcomes
      : outcomes.map((outcome) => (outcome.status === "rejected" ? outcome : confirmed));
  }

  /** Waits for the replicas to have the newest write of this connection. */
  async #confirm(client: Redis): Promise<void> {
    const sentAt = performance.now();
    const target = Math.max(this.needed, this.#online);
    const [acknowledgedByAll] = await Promise.all([
      client.wait(target, ALL_REPLICAS_MS_MAX),
      this.#refresh(client),
    ]);
    const acknowledged =
      acknowledgedByAll >= this.needed
        ? acknowledgedByAll
        : await client.wait(this.needed, NEEDED_REPLICAS_MS_MAX);
    const problem =
      acknowledged < this.needed
        ? `${acknowledged} of ${this.needed} replicas acknowledged it in time`
        : await this.#problemOfPrimary(client, acknowledged);
    this.#instruments.metrics?.acknowledged(performance.now() - sentAt, problem === undefined);
    if (problem !== undefined) {
      throw new NotReplicated(problem);
    }
  }

  /**
   * Why this may not be the primary, if a replica is missing. The missing one may have been promoted while the others still
   * follow this primary and acknowledge: they will drop the change when they follow the new one.
   */
  async #problemOfPrimary(client: Redis, acknowledged: number): Promise<string | undefined> {
    if (this.#confirmation === undefined || acknowledged >= this.#onlineMost) {
      return undefined;
    }
    return (await this.#confirmation.confirms(client))
      ? undefined
      : `${this.#confirmation.by} does not confirm the primary that has it`;
  }

  /** Counts the online replicas, once per interval. */
  async #refresh(client: Redis): Promise<void> {
    const now = performance.now();
    if (now - this.#refreshedAt < REPLICAS_REFRESH_MS) return;
    this.#refreshedAt = now;
    this.#online = countOnline(await client.info("replication"));
    this.#onlineMost = Math.max(this.#onlineMost, this.#online);
    this.#instruments.metrics?.setReplicas(this.#online, this.#node);
  }
}

/** `slave0:ip=…,port=…,state=online,offset=…,lag=1` for each replica. */
export function countOnline(info: string): number {
  const replicas = info.matchAll(/^slave\d+:.*state=online,.*lag=(\d+)/gm);
  return [...replicas].filter(([, lag]) => Number(lag) <= REPLICA_LAG_SECONDS_MAX).length;
}

function isNoScript(outcome: PromiseSettledResult<unknown>): boolean {
  return (
    outcome.status === "rejected" &&
    isErrorReply(outcome.reason) &&
    outcome.reason.message.startsWith("NOSCRIPT")
  );
}
