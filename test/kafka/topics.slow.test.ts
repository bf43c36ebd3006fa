import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, it, type TestContext } from "node:test";
import kafkajs, { type Admin, type Kafka } from "kafkajs";
import { pino } from "pino";
import { readConfig } from "../../server/config.ts";
import { createKafka } from "../../server/kafka/kafkajs/client.ts";
import { Cluster } from "../../server/kafka/kafkajs/cluster.ts";
import type { RedisStore } from "../../server/redis/store.ts";
import { startAppProcess, startTestApp, type TestApp } from "../support/app.ts";
import { scrape } from "../support/scrape.ts";
import { until } from "../support/until.ts";
import {
  DEAD_LETTERS,
  openStore,
  type Platform,
  productMessage,
  readTopic,
  skip,
  startPlatform,
} from "./platform.ts";
import { produceRaw, record } from "./raw-producer.ts";

/** What the documentation promises for partitions that are added. The other bounds are for a busy machine. */
const ADDED_MS_MAX = 60_000;
const SETTLE_MS_MAX = 60_000;

/** The broker creates topics on demand, as the one of the platform's compose file does; this service never asks for it. */
const AUTO_CREATE = { "auto.create.topics.enable": "true", "num.partitions": "1" };

describe("topics, each for itself", { skip }, () => {
  let platform: Platform;
  let app: TestApp;
  let store: RedisStore & AsyncDisposable;
  let cluster: Cluster;
  let admin: Admin;
  let replaced: number | undefined;

  before(async () => {
    platform = await startPlatform({ topics: { product: 3 }, brokerProperties: AUTO_CREATE });
    app = await startTestApp(platform.environment);
    store = await openStore(platform);
    const { kafka } = readConfig(platform.environment);
    assert.ok(kafka);
    cluster = new Cluster(createKafka(kafka, "test", pino({ level: "silent" })));
    admin = platform.kafka.admin();
    await admin.connect();
  });
  after(async () => {
    await admin?.disconnect();
    await cluster?.close();
    await store?.[Symbol.asyncDispose]();
    await app?.stop();
    await platform?.[Symbol.asyncDispose]();
  });

  const degraded = async (): Promise<string[]> =>
    ((await (await fetch(`${app.url}/readyz`)).json()) as { degraded: string[] }).degraded;
  const metric = async (name: string, labels: Record<string, string> = {}) =>
    (await scrape(app.adminUrl)).value(name, labels);

  /** Sends an event to a partition of `product`, and waits until it is applied. Returns the time that this took, ms. */
  async function untilApplied(partition: number, timeoutMs = SETTLE_MS_MAX): Promise<number> {
    const id = randomUUID();
    const start = performance.now();
    await until(
      async () => {
        await cluster.describeTopics(["product"]);
        return produceRaw(cluster, "product", partition, [record({ id, quantity: 3 })]);
      },
      "a leader accepts the event",
      timeoutMs,
    );
    await until(
      async () => (await store.getLedger(id)).declared === 3,
      `an event of partition ${partition} is applied`,
      timeoutMs,
    );
    return performance.now() - start;
  }

  async function untilCollection(collectionId: string): Promise<void> {
    await until(
      async () => (await store.listCollections()).some((each) => each.collectionId === collectionId),
      `collection ${collectionId} is applied`,
      SETTLE_MS_MAX,
    );
  }

  async function exists(topic: string): Promise<boolean> {
    return (await admin.listTopics()).includes(topic);
  }

  const report = (t: TestContext, what: string, ms: number) => t.diagnostic(`${what} ${Math.round(ms)} ms`);

  it("with one topic only, its events are applied, the others are named, and none is created", async (t) => {
    report(t, "first event:", await untilApplied(0));
    const found = await degraded();
    assert.deepEqual(found.filter((each) => each.startsWith("Topic")).sort(), [
      "Topic collection does not exist: events of collections are not ingested",
      "Topic inventory does not exist: changes are not published",
      `Topic ${DEAD_LETTERS} does not exist: messages that cannot be applied wait, and are then only logged`,
    ]);
    assert.deepEqual(
      found.filter((each) => each.startsWith("Sellers' events")),
      [],
    );
    assert.equal(await metric("inventory_topic_missing", { topic: "product" }), 0);
    assert.equal(await metric("inventory_topic_missing", { topic: "collection" }), 1);
    // A broker that has just started may refuse the first member.
    replaced = await metric("inventory_consumers_replaced_total");
    assert.deepEqual(
      (await admin.listTopics()).filter((name) => !name.startsWith("__")),
      ["product"],
    );
  });

  it("publishing starts when its topic appears, with one of the others still missing", async (t) => {
    const start = performance.now();
    await platform.broker.createTopic("inventory", 2);
    await until(
      async () => ((await metric("inventory_changes_published_total")) ?? 0) > 0,
      "changes are published",
      SETTLE_MS_MAX,
    );
    report(t, "published after", performance.now() - start);
    assert.ok((await readTopic(platform.kafka, "inventory")).length > 0);
    assert.equal(await exists("collection"), false);
  });

  it("a topic that the broker creates for a producer is read within seconds", async (t) => {
    const message = productMessage("Create", { id: "on-demand", name: "On demand" });
    const start = performance.now();
    await produceOnDemand(platform.kafka, "collection", message);
    await untilCollection("on-demand");
    report(t, "collection read after", performance.now() - start);
    // The member of before has left, and was not replaced because of a fault.
    assert.equal(await metric("inventory_consumers_replaced_total"), replaced);
    report(t, "and the other topic goes on:", await untilApplied(0));
  });

  it("the topic for dead letters is used as soon as the broker creates it", async () => {
    await platform.broker.createTopic(DEAD_LETTERS, 1);
    await produceRaw(cluster, "product", 1, [record({ id: "" })]);
    await until(
      async () =>
        (await metric("inventory_dead_letters_total", { topic: "product", reason: "bad-id" })) === 1,
      "the letter is sent",
      SETTLE_MS_MAX,
    );
    await until(async () => (await degraded()).length === 0, "nothing is degraded", SETTLE_MS_MAX);
  });

  it("partitions that are added are read within a minute", async (t) => {
    await admin.createPartitions({ topicPartitions: [{ topic: "product", count: 5 }] });
    report(t, "event of an added partition applied after", await untilApplied(4, ADDED_MS_MAX));
    await untilApplied(3);
    await untilApplied(0);
    await until(
      async () => (await metric("inventory_ingest_lag_messages", { topic: "product", partition: "4" })) === 0,
      "the lag of an added partition is known",
      SETTLE_MS_MAX,
    );
  });

  it("a topic that is deleted and created again at once is read from its start", async (t) => {
    // More than the old topic had: a reader that goes on at its old position misses the first ones.
    const records = Array.from({ length: 100 }, (_, n) => record({ id: `again-${n}`, quantity: 3 }));
    const start = performance.now();
    await admin.deleteTopics({ topics: ["product"] });
    await createAgain("product", 5);
    await until(
      async () => {
        await cluster.describeTopics(["product"]);
        return produceRaw(cluster, "product", 0, records);
      },
      "a leader accepts the events",
      SETTLE_MS_MAX,
    );
    await until(
      async () => {
        for (const n of records.keys()) {
          assert.equal((await store.getLedger(`again-${n}`)).declared, 3, `again-${n}`);
        }
        return true;
      },
      "all events of the new topic are applied",
      SETTLE_MS_MAX,
    );
    report(t, "all events of the new topic applied after", performance.now() - start);
    report(t, "and one of another partition:", await untilApplied(1));
    await produceOnDemand(
      platform.kafka,
      "collection",
      productMessage("Create", { id: "beside", name: "Beside" }),
    );
    await untilCollection("beside");
  });

  it("a topic that was deleted and created again while a server did not run is read from its start", async (t) => {
    const topic = "frozen.product";
    await platform.broker.createTopic(topic, 1);
    // With the embedded store and a group of its own: the other server does not read this topic.
    await using frozen = await startAppProcess({
      ...platform.environment,
      REDIS_URL: undefined,
      KAFKA_GROUP: "frozen",
      KAFKA_PRODUCT_TOPIC: topic,
    });
    const send = async (ids: readonly string[]): Promise<bigint> => {
      await cluster.describeTopics([topic]);
      return produceRaw(
        cluster,
        topic,
        0,
        ids.map((id) => record({ id, quantity: 3 })),
      );
    };
    const untilSold = (id: string) =>
      until(async () => (await stockStatus(frozen.url, id)) === 200, `${id} is applied`, SETTLE_MS_MAX);
    await send(["former"]);
    await untilSold("former");

    // Its position is 1, and it cannot see that the topic is missing.
    frozen.process().signal("SIGSTOP");
    await admin.deleteTopics({ topics: [topic] });
    await createAgain(topic, 1);
    const first = await until(() => send(["new-0", "new-1"]), "a leader accepts the events", SETTLE_MS_MAX);
    frozen.process().signal("SIGCONT");

    const start = performance.now();
    await untilSold("new-1");
    await untilSold("new-0");
    assert.equal(first, 0n);
    report(t, "the first event of the new topic applied after", performance.now() - start);
  });

  it("a topic that is missing for a while is named, the other one goes on, and it is read when it is back", async (t) => {
    await admin.deleteTopics({ topics: ["product"] });
    await until(
      async () => (await degraded()).some((each) => each.startsWith("Topic product does not exist")),
      "the health report names the topic",
      SETTLE_MS_MAX,
    );
    await produceOnDemand(
      platform.kafka,
      "collection",
      productMessage("Create", { id: "meanwhile", name: "Meanwhile" }),
    );
    await untilCollection("meanwhile");
    assert.equal(await exists("product"), false, "no request of the service creates it");
    assert.equal(await metric("inventory_topic_missing", { topic: "product" }), 1);
    await createAgain("product", 3);
    report(t, "event applied after", await untilApplied(2));
    await until(async () => (await degraded()).length === 0, "nothing is degraded", SETTLE_MS_MAX);
    assert.equal(await metric("inventory_topic_missing", { topic: "product" }), 0);
    await until(
      async () => (await metric("inventory_ingest_lag_messages")) === 0,
      "nothing waits",
      SETTLE_MS_MAX,
    );
  });

  it("the topic that changes are published to goes on after it was deleted and created again", async () => {
    await admin.deleteTopics({ topics: ["inventory"] });
    await createAgain("inventory", 1);
    await untilApplied(0);
    await until(
      async () => (await readTopic(platform.kafka, "inventory")).length > 0,
      "changes are published to the new topic",
      SETTLE_MS_MAX,
    );
    await until(async () => (await degraded()).length === 0, "nothing is degraded", SETTLE_MS_MAX);
  });

  it("with KAFKA_CREATE_TOPICS, missing ones are created with their configuration, and used", async () => {
    const names = {
      product: "created.product",
      collection: "created.collection",
      inventory: "created.inventory",
      letters: "created.letters",
    };
    await using creating = await startTestApp({
      ...platform.environment,
      KAFKA_GROUP: "creating",
      KAFKA_PRODUCT_TOPIC: names.product,
      KAFKA_COLLECTION_TOPIC: names.collection,
      KAFKA_INVENTORY_TOPIC: names.inventory,
      KAFKA_DEAD_LETTER_TOPIC: names.letters,
      KAFKA_CREATE_TOPICS: "on",
      KAFKA_TOPIC_PARTITIONS: "4",
    });
    await until(
      async () => (await Promise.all(Object.values(names).map(exists))).every(Boolean),
      "the topics are created",
      SETTLE_MS_MAX,
    );
    const configured = {
      "cleanup.policy": "delete",
      "max.message.bytes": "1048588",
      "retention.ms": "604800000",
    };
    const letters = { ...configured, "max.message.bytes": "2097176", "retention.ms": "-1" };
    for (const name of Object.values(names)) {
      const { topics } = await admin.fetchTopicMetadata({ topics: [name] });
      assert.equal(topics[0]?.partitions.length, 4, name);
      assert.partialDeepStrictEqual(
        await configurationOf(admin, name),
        name === names.letters ? letters : configured,
        name,
      );
    }
    await cluster.describeTopics([names.product]);
    await produceRaw(cluster, names.product, 3, [record({ id: "in-a-created-topic", quantity: 3 })]);
    await until(
      async () => (await store.getLedger("in-a-created-topic")).declared === 3,
      "an event of a created topic is applied",
      SETTLE_MS_MAX,
    );
    const health = await until(
      async () => {
        const response = await fetch(`${creating.url}/readyz`);
        const { degraded } = (await response.json()) as { degraded: string[] };
        return degraded.length === 0 && { degraded };
      },
      "nothing is degraded",
      SETTLE_MS_MAX,
    );
    assert.deepEqual(health.degraded, []);
  });

  /**
   * Creates a deleted topic anew. Its name may be in use for a moment. "Exists already" then means that an earlier attempt
   * had an effect in spite of its error: kafkajs rejects if the metadata of a slow broker do not have the topic yet.
   */
  async function createAgain(topic: string, numPartitions: number): Promise<void> {
    await until(async () => !(await exists(topic)), `the deleted topic ${topic} is gone`, SETTLE_MS_MAX);
    await until(
      () =>
        admin.createTopics({ waitForLeaders: false, topics: [{ topic, numPartitions }] }).then(() => true),
      `${topic} is created again`,
      SETTLE_MS_MAX,
    );
  }
});

/** Sends as a client with the defaults of most libraries does: it lets the broker create the topic. */
async function produceOnDemand(
  kafka: Kafka,
  topic: string,
  message: ReturnType<typeof productMessage>,
): Promise<void> {
  const producer = kafka.producer({
    allowAutoTopicCreation: true,
    createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
  });
  await producer.connect();
  await producer.send({ topic, messages: [message] });
  await producer.disconnect();
}

/** The HTTP status of GetStock. */
async function stockStatus(baseUrl: string, productId: string): Promise<number> {
  const response = await fetch(`${baseUrl}/inventory.v1.StockService/GetStock`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ productId }),
  });
  await response.arrayBuffer();
  return response.status;
}

async function configurationOf(admin: Admin, name: string): Promise<Record<string, string>> {
  const { resources } = await admin.describeConfigs({
    includeSynonyms: false,
    resources: [{ type: kafkajs.ConfigResourceTypes.TOPIC, name }],
  });
  const entries = resources[0]?.configEntries ?? [];
  return Object.fromEntries(entries.map(({ configName, configValue }) => [configName, configValue]));
}
