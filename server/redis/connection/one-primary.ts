import type { Redis } from "ioredis";
import type { Logger } from "pino";
import type { RedisInstruments } from "../instruments.ts";
import type { Keys } from "../keys.ts";
import type { Script } from "../scripts.ts";
import { type Prepare, RedisConnection } from "./client.ts";
import type { RedisEndpoint } from "./endpoint.ts";
import type { Availability, Primaries, PrimaryConfirmation } from "./primaries.ts";
import { checkLayout, checkServing, type Layout, recordMarkers } from "./requirements.ts";
import { SentinelQuorum } from "./sentinel-quorum.ts";

export interface PrimariesOptions {
  readonly endpoint: RedisEndpoint;
  readonly keys: Keys;
  readonly log: Logger;
  readonly instruments?: RedisInstruments;
}

/** One primary, which holds every bucket. */
export class OnePrimary implements Primaries {
  readonly #options: PrimariesOptions;
  readonly #sentinels: SentinelQuorum | undefined;
  #connection: RedisConnection | undefined;

  constructor(options: PrimariesOptions) {
    this.#options = options;
    const { sentinel } = options.endpoint;
    this.#sentinels = sentinel && new SentinelQuorum(sentinel);
  }

  readonly isOne = true;

  groupOf(): number {
    return 0;
  }

  send<T>(_bucket: number, send: (client: Redis) => Promise<T>): Promise<T> {
    return this.#reads.send(send);
  }

  sendForKey<T>(_key: string, send: (client: Redis) => Promise<T>): Promise<T> {
    return this.#reads.send(send);
  }

  run(
    _bucket: number,
    script: Script,
    keys: readonly string[],
    args: readonly (string | number)[],
  ): Promise<unknown> {
    return this.#reads.run(script, keys, args);
  }

  availability(): Availability {
    return this.#reads;
  }

  open(name: string, _bucket: number, prepare?: Prepare): RedisConnection {
    const { endpoint, log, instruments } = this.#options;
    return new RedisConnection(name, endpoint, log, instruments, async (client) => {
      await checkServing(client, "one primary");
      await prepare?.(client);
    });
  }

  async checkLayout(client: Redis, expectedData?: string): Promise<Layout> {
    // A connection survives the demotion of its server to a replica.
    await checkServing(client, "one primary");
    return checkLayout(client, this.#options.keys, expectedData);
  }

  recordMarkers(client: Redis): Promise<void> {
    return recordMarkers(client, this.#options.keys);
  }

  get firstReady(): Promise<unknown> {
    return this.#reads.firstReady;
  }

  get unreadyReason(): string | undefined {
    return this.#reads.unreadyReason;
  }

  get confirmation(): PrimaryConfirmation | undefined {
    return this.#sentinels;
  }

  close(): void {
    this.#sentinels?.close();
    this.#connection?.close();
  }

  get #reads(): RedisConnection {
    this.#connection ??= this.open("reads", 0);
    return this.#connection;
  }
}
