import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { Redis } from "ioredis";
import type { Admin, Producer, Transaction } from "kafkajs";
import { pino } from "pino";
import { readConfig } from "../../server/config.ts";
import { createKafka } from "../../server/kafka/kafkajs/client.ts";
import { Cluster } from "../../server/kafka/kafkajs/cluster.ts";
import { Keys } from "../../server/redis/keys.ts";
import type { RedisStore } from "../../server/redis/store.ts";
import { FiredAlerts } from "../deploy/alerts/coverage.ts";
import { firingAlerts, movingPhase, type Phase, steadyPhase } from "../support/alert-rules.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { type Scrape, scrape } from "../support/scrape.ts";
import { until } from "../support/until.ts";
import {
  DEAD_LETTERS,
  openStore,
  type Platform,
  productMessage,
  skip,
  startPlatform,
  untilConsumed,
} from "./platform.ts";
import { produceRaw, record } from "./raw-producer.ts";

const SETTLE_MS_MAX = 60_000;
/** The lag is polled at this interval, so an age is late by as much. */
const POLL_SECONDS = 2;
const promtool = need("promtool");
const keys = new Keys(8);
const fired = new FiredAlerts("test/kafka/monitoring.long.ts");

describe("the metrics of events, and the alerts on them", { skip }, () => {
  let platform: Platform;
  let app: TestApp;
  let store: RedisStore & AsyncDisposable;
  let redis: Redis;
  let cluster: Cluster;
  let admin: Admin;
  let healthy: Phase;

  before(async () => {
    platform = await startPlatform({ durable: true });
    await start();
    store = await openStore(platform);
    redis = new Redis(platform.redis.url);
    redis.on("error", () => {});
    const { kafka } = readConfig(platform.environment);
    assert.ok(kafka);
    cluster = new Cluster(createKafka(kafka, "test", pino({ level: "silent" })));
    admin = platform.kafka.admin();
    await admin.connect();
    await untilApplied("product", 0);
    await untilNothingWaits();
    healthy = await steadyPhase(app.adminUrl, 30);
  });
  after(async () => {
    await admin?.disconnect();
    await cluster?.close();
    redis?.disconnect();
    await store?.[Symbol.asyncDispose]();
    await app?.stop();
    await platform?.[Symbol.asyncDispose]();
  });

  async function start(): Promise<void> {
    app = await startTestApp({ ...platform.environment, KAFKA_DEAD_LETTER_WAIT_MS: "500" });
  }

  /** Sends an event, and waits until it is applied. */
  async function untilApplied(topic: string, partition: number): Promise<void> {
    const id = randomUUID();
    await until(
      () => produceRaw(cluster, topic, partition, [record({ id, quantity: 3 })]).then(() => true),
      "the broker accepts the event",
      SETTLE_MS_MAX,
    );
    await until(
      async () => (await store.getLedger(id)).declared === 3,
      `an event of ${topic} partition ${partition} is applied`,
      SETTLE_MS_MAX,
    );
  }

  const metric = async (name: string, labels: Record<string, string> = {}): Promise<number | undefined> =>
    (await scrape(app.adminUrl)).value(name, labels);
  const degraded = async (): Promise<string[]> =>
    ((await (await fetch(`${app.url}/readyz`)).json()) as { degraded: string[] }).degraded;
  const lagOf = (scraped: Scrape) => scraped.value("inventory_ingest_lag_messages");

  async function untilLag(messages: number): Promise<void> {
    await until(
      async () => lagOf(await scrape(app.adminUrl)) === messages,
      `the lag is ${messages}`,
      SETTLE_MS_MAX,
    );
  }

  async function untilNothingWaits(): Promise<void> {
    await until(
      async () => {
        const scraped = await scrape(app.adminUrl);
        assert.equal(lagOf(scraped), 0, "messages");
        assert.equal(scraped.value("inventory_ingest_lag_seconds"), 0, "seconds");
        assert.equal(scraped.value("inventory_ingest_waiting_partitions"), 0, "waiting partitions");
        assert.equal(scraped.value("inventory_publish_lag_messages"), 0, "unpublished");
        return true;
      },
      "nothing waits",
      SETTLE_MS_MAX,
    );
  }

  /** As above, after a poll of the lag: until then it may be the one of before, or have been polled before the commit. */
  async function untilPolledThatNothingWaits(): Promise<void> {
    await wait(1.5 * POLL_SECONDS * 1_000);
    await untilNothingWaits();
  }

  /** Which alerts fire when the server was healthy, then in `fault` for a quarter of an hour. */
  async function assertFires(fault: Phase, expected: readonly string[]): Promise<void> {
    if (promtool.missing) {
      return;
    }
    assert.deepEqual(await firingAlerts("inventory-events", [healthy, fault]), [...expected].sort());
    const recovered = await steadyPhase(app.adminUrl, 30);
    // Without the fault the increases of counters are out of the rules' windows at the end.
    assert.deepEqual(await firingAlerts("inventory-events", [healthy, fault, recovered]), []);
    fired.add(...expected);
  }

  /** The fault as it is now, going on for as long as it takes to page somebody. */
  const faultNow = (untilChanged: (first: Scrape) => Promise<unknown> = () => wait(1_000)): Promise<Phase> =>
    movingPhase(app.adminUrl, 12, untilChanged);

  async function inTransactions(
    action: (begin: () => Promise<Transaction>, producer: Producer) => Promise<void>,
  ) {
    const producer = platform.kafka.producer({
      transactionalId: randomUUID(),
      idempotent: true,
      maxInFlightRequests: 1,
    });
    await producer.connect();
    try {
      await action(() => producer.transaction(), producer);
    } finally {
      await producer.disconnect();
    }
  }

  async function deleteBefore(topic: string, partition: number, offset: bigint): Promise<void> {
    // kafkajs deletes records only of topics whose metadata another call has loaded.
    await admin.fetchTopicOffsets(topic);
    await admin.deleteTopicRecords({ topic, partitions: [{ partition, offset: String(offset) }] });
  }

  const event = (id: string, partition: number) => ({
    topic: "product",
    messages: [{ ...productMessage("Update", { id, quantity: 3 }), partition }],
  });

  it(`no alert fires while nothing is wrong${promtool.missing ? ` (alerts are skipped: ${promtool.missing})` : ""}`, async () => {
    assert.equal(await metric("inventory_ingest_up"), 1);
    await assertFires(await faultNow(), []);
  });

  it("the lag is 0 after transactions, of which the last ones were aborted", async () => {
    await inTransactions(async (begin) => {
      for (let n = 0; n < 6; n++) {
        const transaction = await begin();
        for (const partition of [0, 1, 2]) {
          await transaction.send(event(`transaction-${n}-${partition}`, partition));
        }
        await (n % 3 === 0 ? transaction.commit() : transaction.abort());
      }
    });
    await until(
      async () => (await store.getLedger("transaction-3-2")).declared === 3,
      "the committed events are applied",
      SETTLE_MS_MAX,
    );
    await untilConsumed(platform.kafka);
    await untilPolledThatNothingWaits();
    await assert.rejects(store.getLedger("transaction-5-0"), "an aborted event is not applied");
  });

  it("the lag counts what an open transaction holds back, with its age, and InventoryIngestLag fires", async (t) => {
    await inTransactions(async (begin) => {
      const transaction = await begin();
      const sentAt = Date.now();
      await transaction.send(event("open", 1));
      await produceRaw(cluster, "product", 1, [record({ id: "behind-open", quantity: 3 })]);
      await untilLag(2);
      const age = () => (Date.now() - sentAt) / 1_000;
      const fault = await faultNow((first) =>
        until(
          async () => ((await metric("inventory_ingest_lag_seconds")) ?? 0) > (ageIn(first) ?? 0) + 3,
          "the age grows",
          SETTLE_MS_MAX,
        ),
      );
      const [seconds, atMost] = [fault.second && ageIn(fault.second.scrape), age()];
      t.diagnostic(`${seconds} s of lag, ${atMost} s after the message was sent`);
      assert.ok(seconds !== undefined && seconds <= atMost + 0.1, `${seconds} s is older than the message`);
      assert.ok(seconds > 3 && seconds >= atMost - POLL_SECONDS - 2, `${seconds} s of ${atMost} s`);
      await transaction.commit();
      await until(
        async () => (await store.getLedger("behind-open")).declared === 3,
        "what was behind it is applied",
        SETTLE_MS_MAX,
      );
      await untilNothingWaits();
      await assertFires(fault, ["InventoryIngestLag"]);
    });
  });

  it("partitions that wait make InventoryIngestLag fire, and the lag is 0 when their messages are deleted", async () => {
    await platform.redis.kill9();
    const deleted = ["deleted-1", "deleted-2"].map((id) => record({ id, quantity: 3 }));
    const from = await produceRaw(cluster, "product", 2, deleted);
    // Partition 1 of this topic has never had a committed offset.
    await produceRaw(cluster, "collection", 1, [record({ id: "deleted", name: "deleted" })]);
    await untilLag(3);
    await until(
      async () => (await metric("inventory_ingest_waiting_partitions")) === 2,
      "both partitions wait",
      SETTLE_MS_MAX,
    );
    const fault = await faultNow();
    await deleteBefore("product", 2, from + 2n);
    await deleteBefore("collection", 1, 1n);
    await untilLag(0);
    await platform.redis.restart();
    await untilApplied("product", 2);
    await untilNothingWaits();
    await assertFires(fault, ["InventoryIngestLag"]);
  });

  it("a message that can never be applied makes InventoryDeadLetters fire", async () => {
    const before = await metric("inventory_dead_letters_total");
    await produceRaw(cluster, "product", 0, [record({ id: "" })]);
    await until(
      async () => (await metric("inventory_dead_letters_total")) === (before ?? 0) + 1,
      "the letter is counted",
      SETTLE_MS_MAX,
    );
    await untilPolledThatNothingWaits();
    await assertFires(await faultNow(), ["InventoryDeadLetters"]);
    healthy = await steadyPhase(app.adminUrl, 30);
  });

  it("a dead letter that is too large makes InventoryDeadLettersIncomplete fire as well", async () => {
    await produceRaw(cluster, "product", 0, [
      record(Buffer.concat([Buffer.from("?"), randomBytes(1_048_400)])),
    ]);
    await until(
      async () => (await metric("inventory_dead_letters_shortened_total")) === 1,
      "the letter is shortened",
      SETTLE_MS_MAX,
    );
    await untilPolledThatNothingWaits();
    await assertFires(await faultNow(), ["InventoryDeadLetters", "InventoryDeadLettersIncomplete"]);
    healthy = await steadyPhase(app.adminUrl, 30);
  });

  it("without the topic for dead letters, InventoryTopicMissing and InventoryDeadLettersIncomplete fire", async () => {
    await admin.deleteTopics({ topics: [DEAD_LETTERS] });
    await until(
      async () => (await metric("inventory_topic_missing", { topic: DEAD_LETTERS })) === 1,
      "the topic is missing",
      SETTLE_MS_MAX,
    );
    await produceRaw(cluster, "product", 0, [record({ id: "" })]);
    await until(
      async () => (await metric("inventory_dead_letters_logged_total")) === 1,
      "the letter is logged",
      SETTLE_MS_MAX,
    );
    await untilPolledThatNothingWaits();
    const fault = await faultNow();
    await platform.broker.createTopic(DEAD_LETTERS, 2);
    await until(
      async () => (await metric("inventory_topic_missing")) === 0,
      "the topic is back",
      SETTLE_MS_MAX,
    );
    await assertFires(fault, ["InventoryTopicMissing", "InventoryDeadLettersIncomplete"]);
    healthy = await steadyPhase(app.adminUrl, 30);
  });

  it("without a broker the lag is known and grows, and the alerts on reading and publishing fire", async () => {
    const productId = "published-late";
    await platform.redis.kill9();
    await produceRaw(cluster, "product", 0, [record({ id: "waits-for-the-broker", quantity: 3 })]);
    await untilLag(1);
    await platform.broker.kill9();
    await platform.redis.restart();
    await until(
      () => store.putProduct({ productId, declared: 3, details: undefined, updateTimeMicros: 1 }),
      "the store accepts a change",
      SETTLE_MS_MAX,
    );
    await until(
      async () =>
        (await metric("inventory_ingest_up")) === 0 &&
        ((await metric("inventory_publish_lag_messages")) ?? 0) > 0,
      "nothing is read or published",
      SETTLE_MS_MAX,
    );
    const fault = await faultNow((first) =>
      until(
        async () =>
          ((await metric("inventory_consumers_replaced_total")) ?? 0) >=
          (first.value("inventory_consumers_replaced_total") ?? 0) + 1,
        "another consumer is replaced",
        SETTLE_MS_MAX,
      ),
    );
    for (const each of [fault.first, fault.second?.scrape]) {
      assert.ok(each !== undefined && (lagOf(each) ?? 0) > 0, "messages while nothing is read");
    }
    assert.ok(((fault.second && ageIn(fault.second.scrape)) ?? 0) > (ageIn(fault.first) ?? 0));

    // The backlog overflows, so that changes are lost to the publisher.
    for (let bucket = 0; bucket < keys.buckets; bucket++) {
      await redis.xtrim(keys.changes(bucket), "MAXLEN", 0);
    }
    await platform.broker.restart();
    await untilApplied("product", 0);
    await untilNothingWaits();
    const alerts = [
      "InventoryIngestDown",
      "InventoryConsumersReplaced",
      "InventoryIngestLag",
      "InventoryPublishLag",
    ];
    await until(
      async () => ((await metric("inventory_publish_snapshots_total")) ?? 0) > 0,
      "snapshots are published",
      SETTLE_MS_MAX,
    );
    await assertFires(fault, alerts);
    if (!promtool.missing) {
      const afterwards = await steadyPhase(app.adminUrl, 5);
      assert.ok(
        (await firingAlerts("inventory-events", [healthy, afterwards])).includes("InventoryBacklogGap"),
      );
      fired.add("InventoryBacklogGap");
    }
  });

  it("after a restart without a broker, InventoryIngestDown fires, and the lag in seconds grows", async () => {
    await app.stop();
    await platform.broker.kill9();
    await start();
    await until(
      async () => (await degraded()).some((each) => each.startsWith("Sellers' events are not applied")),
      "the health report says that nothing is read",
      SETTLE_MS_MAX,
    );
    const fault = await faultNow();
    assert.equal(fault.first.value("inventory_ingest_up"), 0);
    await platform.broker.restart();
    await untilApplied("product", 0);
    await untilNothingWaits();
    healthy = await steadyPhase(app.adminUrl, 30);
    await assertFires(fault, ["InventoryIngestDown", "InventoryIngestLag"]);
  });

  it("every alert that is listed for this file has fired", { skip: promtool.missing }, () => {
    fired.assertComplete();
  });

  function ageIn(scraped: Scrape): number | undefined {
    return scraped.value("inventory_ingest_lag_seconds");
  }
});
