import { randomBytes, randomInt, randomUUID } from "node:crypto";
import kafkajs, { type Kafka, type KafkaMessage, type Message } from "kafkajs";
import { pino } from "pino";
import { Keys } from "../../server/redis/keys.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { type KafkaBroker, startKafka } from "../support/kafka-broker.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";

const { logLevel } = kafkajs;

/** Why the tests with a real broker are skipped, or `false`. */
export const skip = need("own-kafka").missing || need("redis-server").missing;

export const TOPICS = { product: 3, collection: 2, inventory: 3, "product.inventory.dead-letter": 2 };
export const DEAD_LETTERS = "product.inventory.dead-letter";
const BUCKETS = 8;
const MESSAGES_PER_SEND_MAX = 500;
const DRAIN_MS_MAX = 60_000;

/** Redis and Kafka of one test file's own, with the service's topics. */
export interface Platform extends AsyncDisposable {
  readonly redis: RedisServer;
  readonly broker: KafkaBroker;
  /** A plain client, as another team has it. */
  readonly kafka: Kafka;
  /** The environment of a server. */
  readonly environment: NodeJS.ProcessEnv;
}

interface PlatformOptions {
  readonly durable?: boolean;
  /** The service's topics that exist at the start, with their partitions. All unless given. */
  readonly topics?: Readonly<Record<string, number>>;
  readonly brokerProperties?: Readonly<Record<string, string>>;
  readonly isBrokerNice?: boolean;
}

/** Redis persists nothing unless `durable` is set, and so never waits for the disk. */
export async function startPlatform({
  durable = false,
  topics = TOPICS,
  brokerProperties,
  isBrokerNice = false,
}: PlatformOptions = {}): Promise<Platform> {
  const redis = await startRedis({ appendonly: durable ? "yes" : "no" });
  try {
    const broker = await startKafka({
      own: true,
      isNice: isBrokerNice,
      ...(brokerProperties && { extraProperties: brokerProperties }),
    });
    await createTopics(broker, topics);
    return {
      redis,
      broker,
      kafka: plainClient(broker),
      environment: {
        REDIS_URL: redis.url,
        KAFKA_BROKERS: broker.brokers.join(),
        ADMIN_PORT: "0",
        INVENTORY_BUCKETS: String(BUCKETS),
      },
      [Symbol.asyncDispose]: async () => {
        await broker.stop();
        await redis.stop();
      },
    };
  } catch (error) {
    await redis.stop();
    throw error;
  }
}

/** Creates the service's topics. A broker under load may not know a topic for a moment after it was created. */
export async function createTopics(
  broker: KafkaBroker,
  topics: Readonly<Record<string, number>> = TOPICS,
): Promise<void> {
  for (const [topic, partitions] of Object.entries(topics)) {
    await until(
      () => broker.createTopic(topic, partitions).then(() => true),
      `topic ${topic} is there`,
      30_000,
    );
  }
}

export function plainClient(broker: KafkaBroker): Kafka {
  return new kafkajs.Kafka({
    clientId: "other-team",
    brokers: broker.brokers,
    logLevel: logLevel.NOTHING,
    connectionTimeout: 2_000,
    // A slow broker must not get a request twice: it would write the messages twice.
    requestTimeout: 30_000,
    retry: { initialRetryTime: 100, maxRetryTime: 500, retries: 60 },
  });
}

/** The store itself, bypassing the service. */
export async function openStore({ redis }: Platform): Promise<RedisStore & AsyncDisposable> {
  const keys = new Keys(BUCKETS);
  const store = new RedisStore({ endpoint: { url: redis.url }, log: pino({ level: "silent" }), keys });
  await store.start(5_000);
  return Object.assign(store, { [Symbol.asyncDispose]: () => store.close() });
}

/** Sends messages as the sellers' service does: acknowledged, each under a random key. */
export async function produce(kafka: Kafka, topic: string, messages: readonly Message[]): Promise<void> {
  const producer = kafka.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner });
  await producer.connect();
  try {
    for (let start = 0; start < messages.length; start += MESSAGES_PER_SEND_MAX) {
      await producer.send({ topic, messages: messages.slice(start, start + MESSAGES_PER_SEND_MAX) });
    }
  } finally {
    await producer.disconnect();
  }
}

/** A product event as the sellers' service writes it. */
export function productMessage(type: string, value: object): Message {
  return {
    key: randomBytes(12).toString("base64url"),
    headers: { MessageType: type },
    value: JSON.stringify(value),
  };
}

/** All current messages of a topic, each partition in order, read by a plain consumer. */
export async function readTopic(kafka: Kafka, topic: string): Promise<KafkaMessage[]> {
  const ends = await endsOf(kafka, topic);
  const consumer = kafka.consumer({ groupId: `reader-${randomUUID()}`, maxWaitTimeInMs: 100 });
  const messages: KafkaMessage[] = [];
  try {
    await consumer.connect();
    await consumer.subscribe({ topics: [topic], fromBeginning: true });
    await consumer.run({
      eachBatch: async ({ batch }) => {
        messages.push(...batch.messages);
        ends.set(batch.partition, ends.get(batch.partition) ?? 0n);
        if (BigInt(batch.lastOffset()) + 1n >= (ends.get(batch.partition) ?? 0n)) {
          ends.delete(batch.partition);
        }
      },
    });
    await until(() => ends.size === 0, `topic ${topic} is read to its end`, DRAIN_MS_MAX);
  } finally {
    await consumer.disconnect();
  }
  return messages;
}

async function endsOf(kafka: Kafka, topic: string): Promise<Map<number, bigint>> {
  const admin = kafka.admin();
  await admin.connect();
  const offsets = await admin.fetchTopicOffsets(topic);
  await admin.disconnect();
  return new Map(
    offsets.filter(({ low, high }) => low !== high).map(({ partition, high }) => [partition, BigInt(high)]),
  );
}

/** Waits until `count` servers are members of the stable group; returns their member IDs. */
export async function untilMembers(kafka: Kafka, count: number): Promise<string[]> {
  const admin = kafka.admin();
  await admin.connect();
  try {
    return await until(
      async () => {
        const [group] = (await admin.describeGroups(["inventory"])).groups;
        const members = group?.members.map(({ memberId }) => memberId) ?? [];
        return group?.state === "Stable" && members.length === count && members.sort();
      },
      `${count} servers are in the group`,
      DRAIN_MS_MAX,
    );
  } finally {
    await admin.disconnect();
  }
}

/** Waits until the group has acknowledged all messages of both topics. */
export async function untilConsumed(kafka: Kafka, timeoutMs = DRAIN_MS_MAX): Promise<void> {
  const admin = kafka.admin();
  await admin.connect();
  try {
    await until(
      async () => (await groupLag(admin, "product")) + (await groupLag(admin, "collection")) === 0,
      "every event is acknowledged",
      timeoutMs,
    );
  } finally {
    await admin.disconnect();
  }
}

async function groupLag(admin: ReturnType<Kafka["admin"]>, topic: string): Promise<number> {
  const [committed] = await admin.fetchOffsets({ groupId: "inventory", topics: [topic] });
  const ends = await admin.fetchTopicOffsets(topic);
  return ends.reduce((sum, { partition, high }) => {
    const offset = committed?.partitions.find((each) => each.partition === partition)?.offset ?? "-1";
    return sum + Number(high) - Math.max(0, Number(offset));
  }, 0);
}

/** A header's value as text. */
export function headerOf(message: Pick<KafkaMessage, "headers">, name: string): string | undefined {
  return message.headers?.[name]?.toString();
}

/** A deterministic random number generator: mulberry32. */
export function randomFrom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4_294_967_296) * below);
  };
}

/** KAFKA_TEST_SEED, or a new seed. Print it, so that a failure can be reproduced. */
export function newSeed(): number {
  return Number(process.env["KAFKA_TEST_SEED"] ?? randomInt(2 ** 31));
}

export function shuffle<T>(items: T[], random: (below: number) => number): T[] {
  for (let i = items.length - 1; i > 0; i--) {
    const j = random(i + 1);
    const [a, b] = [items[i], items[j]];
    if (a !== undefined && b !== undefined) {
      items[i] = b;
      items[j] = a;
    }
  }
  return items;
}

/**
 * Violations of the outgoing topic's contract: each version of a product, from 1 to the newest, must first occur
 * directly after the version before it. Duplicates of earlier versions are allowed.
 */
export function findDisorder(
  messages: readonly KafkaMessage[],
  newest: ReadonlyMap<string, number>,
): string[] {
  const wrong: string[] = [];
  const reached = new Map<string, number>();
  for (const message of messages) {
    const value = JSON.parse(message.value?.toString() ?? "") as { productId: string; version: string };
    const version = Number(value.version);
    const before = reached.get(value.productId) ?? 0;
    if (message.key?.toString() !== value.productId) {
      wrong.push(`${value.productId} version ${version} has the key ${message.key}`);
    }
    if (headerOf(message, "eventId") !== `${value.productId}:${version}`) {
      wrong.push(`${value.productId} version ${version} has the event ID ${headerOf(message, "eventId")}`);
    }
    if (version > before + 1) {
      wrong.push(`${value.productId} goes from version ${before} to ${version}`);
    }
    reached.set(value.productId, Math.max(before, version));
  }
  for (const [productId, version] of newest) {
    if (reached.get(productId) !== version) {
      wrong.push(`${productId} is at version ${version}, and ${reached.get(productId)} was published`);
    }
  }
  return wrong;
}
