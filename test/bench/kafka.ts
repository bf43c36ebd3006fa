import { Redis } from "ioredis";
import { BUCKETS_DEFAULT, Keys } from "../../server/redis/keys.ts";
import { createTopics, plainClient, produce, productMessage } from "../kafka/platform.ts";
import { type KafkaBroker, startKafka } from "../support/kafka-broker.ts";
import { Hopeless, until } from "../support/until.ts";
import { type Bench, requireProgram } from "./bench-context.ts";
import { productIdOf } from "./catalog.ts";
import { pin, startNodePeer, startPinnedRedis, startService } from "./processes.ts";
import { type Turn, takeTurns, values } from "./rounds.ts";

const TOPIC = "product";
const PRODUCTS = 3_000;
const EVENTS = 90_000;
/** Events of each turn that are not measured: it starts with new processes, whose code is compiled meanwhile. */
const WARM_UP_EVENTS = 30_000;
const FIRST_UPDATE_MS = Date.UTC(2025, 0, 1);
const PEER = "a kafkajs consumer that writes one HSET per event";
const TURN_MS_MAX = 60_000;

/** Ingest of sellers' events that are already in the topic, compared with a consumer of the same library that writes each to Redis. */
export const measureKafka: Bench = async (context) => {
  requireProgram("own-kafka");
  await using broker = await startKafka({ own: true });
  await pin("load", broker.pid);
  await createTopics(broker);
  await produce(
    plainClient(broker),
    TOPIC,
    Array.from({ length: EVENTS }, (_, n) => eventOf(n)),
  );
  let group = 0;
  const turns = await takeTurns(
    {
      service: () => ingest(broker, `bench-${++group}`),
      [PEER]: () => write(broker),
    },
    context,
  );
  return [
    {
      what: "Kafka ingest of product updates, each change published again",
      unit: "events/s",
      here: values(turns.service),
      peer: {
        name: PEER,
        there: values(turns[PEER]),
      },
      target: { atLeast: 0.4 },
    },
  ];
};

/** The n-th update. Each product has thirty, and each changes its count. */
function eventOf(n: number) {
  const updatedAt = new Date(FIRST_UPDATE_MS + n * 1_000).toISOString();
  const id = productIdOf((n % PRODUCTS) + 1);
  const event = productMessage("Update", {
    id,
    createdAt: updatedAt,
    updatedAt,
    name: `Enamel Mug No. ${n % PRODUCTS}`,
    description: "Made of what lasts, by people who are paid for it. Washes at thirty degrees.",
    price: 14.5,
    inventory: n + 1,
  });
  // All updates of a product are in one partition, so that none is stale.
  return { ...event, key: id };
}

/**
 * Rate between the end of the warm-up and the moment when the last change is published and the cursors have passed it, with a
 * new service and an empty Redis.
 */
async function ingest(broker: KafkaBroker, group: string): Promise<Turn> {
  await using redis = await startPinnedRedis();
  const client = new Redis(redis.url);
  try {
    const keys = new Keys(BUCKETS_DEFAULT);
    await using service = await startService(redis, {
      KAFKA_BROKERS: broker.brokers.join(),
      KAFKA_GROUP: group,
    });
    const first = await until(
      async () => {
        const { applied } = await progressOf(client, keys);
        return (
          applied >= WARM_UP_EVENTS && { applied, at: performance.now(), cpu: await service.cpuSeconds() }
        );
      },
      "the events of the warm-up are applied",
      TURN_MS_MAX,
    );
    await until(
      async () => {
        const { applied, published } = await progressOf(client, keys);
        if (applied > EVENTS) {
          throw new Hopeless(`${EVENTS} events were applied ${applied} times`);
        }
        return published === EVENTS;
      },
      "the last change is published",
      TURN_MS_MAX,
    );
    const seconds = (performance.now() - first.at) / 1_000;
    const cpu = await service.cpuSeconds();
    return {
      value: (EVENTS - first.applied) / seconds,
      serverBusy: first.cpu === undefined || cpu === undefined ? undefined : (cpu - first.cpu) / seconds,
    };
  } finally {
    client.disconnect();
  }
}

/** Number of changes written so far, and of those that are published. */
async function progressOf(
  client: Redis,
  keys: Keys,
): Promise<{ readonly applied: number; readonly published: number }> {
  const buckets = await Promise.all(
    Array.from({ length: keys.buckets }, async (_, bucket) => {
      const [info, published] = await Promise.all([
        client.xinfo("STREAM", keys.changes(bucket)).catch(() => []),
        client.hget(keys.outbox(bucket), "count"),
      ]);
      const fields = Array.isArray(info) ? info : [];
      return {
        applied: Number(fields[fields.indexOf("entries-added") + 1] ?? 0),
        published: Number(published ?? 0),
      };
    }),
  );
  return {
    applied: buckets.reduce((sum, { applied }) => sum + applied, 0),
    published: buckets.reduce((sum, { published }) => sum + published, 0),
  };
}

async function write(broker: KafkaBroker): Promise<Turn> {
  await using redis = await startPinnedRedis();
  const env = {
    TOPIC,
    EVENTS: String(EVENTS),
    WARM_UP_EVENTS: String(WARM_UP_EVENTS),
    KAFKA_BROKERS: broker.brokers.join(),
    REDIS_URL: redis.url,
  };
  await using consumer = await startNodePeer("hset-consumer.ts", env, async () => true);
  const rate = await until(
    () => /events\/s: ([\d.]+)/.exec(consumer.output())?.[1],
    "all events are written",
    TURN_MS_MAX,
  );
  return { value: Number(rate) };
}
