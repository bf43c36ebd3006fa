import assert from "node:assert/strict";
import { pino } from "pino";
import { readConfig } from "../../server/config.ts";
import { originOf } from "../../server/kafka/dead-letters/dead-letters.ts";
import type { IncomingMessage } from "../../server/kafka/ingest/message.ts";
import { readRange } from "../../server/kafka/ingest/read-range.ts";
import { createKafka } from "../../server/kafka/kafkajs/client.ts";
import { Cluster } from "../../server/kafka/kafkajs/cluster.ts";
import type { RedisStore } from "../../server/redis/store.ts";
import { type AppProcess, startAppProcess } from "../support/app.ts";
import { freePort } from "../support/free-port.ts";
import { scrape } from "../support/scrape.ts";
import { until } from "../support/until.ts";
import { DEAD_LETTERS, openStore, type Platform, startPlatform } from "./platform.ts";
import { encodeHeaders, produceRaw, type RawRecord, record } from "./raw-producer.ts";

const SETTLE_MS_MAX = 120_000;

/** A server in a process of its own, whose event loop is watched, and raw access to its topics. */
export interface Isolation extends AsyncDisposable {
  readonly platform: Platform;
  readonly cluster: Cluster;
  readonly store: RedisStore;
  readonly adminUrl: string;
  /** Everything that the server has logged since it was last started. */
  output(): Promise<string>;
  /** Stops the server and starts it with other variables. */
  restart(environment: NodeJS.ProcessEnv): Promise<void>;
  /** Sends a valid event to a partition of `product`, and waits until it is applied. */
  untilApplied(id: string, partition: number): Promise<void>;
  /** Waits until the group has committed an offset of a partition of `product`. */
  untilCommitted(partition: number, offset: bigint): Promise<void>;
  /** The longest delay of the server's event loop since the last call, ms. */
  delayMs(): Promise<number>;
  /** The dead letters since the last call. */
  newLetters(): Promise<IncomingMessage[]>;
}

export async function startIsolation(
  environment: NodeJS.ProcessEnv = {},
  brokerProperties?: Readonly<Record<string, string>>,
): Promise<Isolation> {
  const platform = await startPlatform(brokerProperties && { brokerProperties });
  const adminPort = await freePort();
  const adminUrl = `http://127.0.0.1:${adminPort}`;
  const start = (variables: NodeJS.ProcessEnv): Promise<AppProcess> =>
    startAppProcess({ ...platform.environment, ADMIN_PORT: String(adminPort), ...variables });
  let app = await start(environment);
  const { kafka } = readConfig(platform.environment);
  assert.ok(kafka);
  const cluster = new Cluster(createKafka(kafka, "test", pino({ level: "silent" })));
  const store = await openStore(platform);
  const lettersRead = new Map<number, bigint>();

  async function untilApplied(id: string, partition: number): Promise<void> {
    await produceRaw(cluster, "product", partition, [record({ id, quantity: 3 })]);
    await until(async () => (await store.getLedger(id)).declared === 3, `${id} is applied`, SETTLE_MS_MAX);
  }

  async function newLetters(): Promise<IncomingMessage[]> {
    const letters: IncomingMessage[] = [];
    for (const partition of await cluster.partitionsOf(DEAD_LETTERS)) {
      const [range] = await cluster.ranges([{ topic: DEAD_LETTERS, partition }]);
      const from = lettersRead.get(partition) ?? 0n;
      for await (const slice of readRange(
        cluster,
        { topic: DEAD_LETTERS, partition },
        from,
        range?.latest ?? 0n,
      )) {
        letters.push(...slice.messages);
        lettersRead.set(partition, slice.next);
      }
    }
    return letters;
  }

  await untilApplied("warm-up", 1);
  return {
    platform,
    cluster,
    store,
    adminUrl,
    output: () => app.output(),
    restart: async (variables) => {
      await app.stop();
      app = await start(variables);
    },
    untilApplied,
    newLetters,
    untilCommitted: async (partition, offset) => {
      await until(
        async () => {
          const [committed] = await cluster.committedOffsets("inventory", [{ topic: "product", partition }]);
          return (committed?.offset ?? 0n) >= offset;
        },
        `offset ${offset} is committed`,
        SETTLE_MS_MAX,
      );
    },
    delayMs: async () => ((await scrape(adminUrl)).value("nodejs_eventloop_lag_max_seconds") ?? 0) * 1_000,
    [Symbol.asyncDispose]: async () => {
      await store[Symbol.asyncDispose]();
      await cluster.close();
      await app.stop();
      await platform[Symbol.asyncDispose]();
    },
  };
}

/** The number of records that a letter stands for: one, or those of a batch that cannot be read. */
export function recordsOf(letter: IncomingMessage): number {
  const last = letter.headers.text("inventory-dead-letter-last-offset");
  return last === undefined ? 1 : Number(last) - Number(originOf(letter.headers)?.offset) + 1;
}

/** Asserts that a letter begins with its original. Without a comparison by assert: its diff of a megabyte takes gigabytes. */
export function assertKeepsOriginal(letter: IncomingMessage, original: RawRecord): void {
  const { bytes } = encodeHeaders(original.headers);
  assert.ok(isSame(letter.key, original.key), "the original's key");
  assert.ok(isSame(letter.value, original.value), "the original's value");
  assert.ok(letter.headers.bytes.subarray(0, bytes.length).equals(bytes), "the original's headers");
}

function isSame(a: Buffer | null, b: Buffer | null): boolean {
  return a === null || b === null ? a === b : a.equals(b);
}
