import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { Redis } from "ioredis";
import type { KafkaMessage } from "kafkajs";
import { pino } from "pino";
import { Cluster } from "../../server/kafka/kafkajs/cluster.ts";
import type { PartitionBatch } from "../../server/kafka/kafkajs/produce-protocol.ts";
import { OrderedProducer } from "../../server/kafka/publish/ordered-producer.ts";
import { Keys } from "../../server/redis/keys.ts";
import { RedisOutbox } from "../../server/redis/outbox.ts";
import type { RedisStore } from "../../server/redis/store.ts";
import { type AppProcess, startAppProcess, startTestApp, type TestApp } from "../support/app.ts";
import { until } from "../support/until.ts";
import {
  findDisorder,
  headerOf,
  openStore,
  type Platform,
  plainClient,
  readTopic,
  skip,
  startPlatform,
} from "./platform.ts";

const keys = new Keys(8);
const PRODUCTS = 40;
/** After a broker was killed, recovery may take a session timeout and the members' backoff. */
const SETTLE_MS_MAX = 60_000;

interface Report {
  readonly ready: boolean;
  readonly degraded: readonly string[];
  readonly details: {
    readonly kafka: { readonly publish: { readonly lagMessages: number; readonly lagSeconds: number } };
  };
}

describe("the publisher", { skip }, () => {
  let platform: Platform;
  let store: RedisStore;
  let client: Redis;
  let outbox: RedisOutbox;

  before(async () => {
    platform = await startPlatform();
    store = await openStore(platform);
    client = new Redis(platform.redis.url);
    outbox = new RedisOutbox({ endpoint: { url: platform.redis.url }, keys, log: pino({ level: "silent" }) });
    await until(() => outbox.backlog(), "the outbox is connected");
  });
  after(async () => {
    await store?.close();
    await outbox?.close();
    client?.disconnect();
    await platform?.[Symbol.asyncDispose]();
  });

  const productIds = Array.from({ length: PRODUCTS }, (_, n) => `p${n}`);

  async function changeAll(times = 1): Promise<void> {
    for (let n = 0; n < times; n++) {
      await Promise.all(
        productIds.map(async (productId) => {
          await store.putProduct({ productId, declared: 100, details: undefined, updateTimeMicros: 1 });
          await store.adjustStock({ productId, delta: 1, adjustmentId: randomUUID(), reason: "" });
        }),
      );
    }
  }

  async function newestVersions(): Promise<Map<string, number>> {
    const ledgers = await Promise.all(productIds.map((productId) => store.getLedger(productId)));
    return new Map(ledgers.map(({ productId, version }) => [productId, version]));
  }

  async function reportOf(app: TestApp | AppProcess): Promise<Report> {
    return (await (await fetch(`${app.url}/readyz`)).json()) as Report;
  }

  async function untilPublished(): Promise<void> {
    await until(
      async () => (await outbox.backlog()).every(({ entries }) => entries === 0),
      "every change is published",
      SETTLE_MS_MAX,
    );
  }

  async function leasesOf(): Promise<Map<string, number>> {
    const shares = new Map<string, number>();
    for (let bucket = 0; bucket < keys.buckets; bucket++) {
      const [owner, until = "0"] = await client.hmget(keys.outbox(bucket), "owner", "until");
      if (owner && Number(until) > Date.now()) {
        shares.set(owner, (shares.get(owner) ?? 0) + 1);
      }
    }
    return shares;
  }

  it("two servers share the buckets; the buckets of a killed one are taken over within seconds", async (t) => {
    await using _first = await startTestApp(platform.environment);
    await until(
      async () => [...(await leasesOf()).values()].join() === "8",
      "the first has all",
      SETTLE_MS_MAX,
    );
    await using second = await startAppProcess(platform.environment);
    await until(
      async () => [...(await leasesOf()).values()].join() === "4,4",
      "each has half",
      SETTLE_MS_MAX,
    );
    await changeAll(3);
    await second.kill9();
    const killed = performance.now();
    await changeAll(3);
    await untilPublished();
    const tookMs = performance.now() - killed;
    t.diagnostic(`all was published ${Math.round(tookMs)} ms after the kill`);
    await until(
      async () => [...(await leasesOf()).values()].join() === "8",
      "the first has all again",
      SETTLE_MS_MAX,
    );
    assert.deepEqual(findDisorder(await readTopic(platform.kafka, "inventory"), await newestVersions()), []);
  });

  it("a request whose response is lost is sent again and written once", async () => {
    const { broker, kafka } = platform;
    await broker.createTopic("repeated", 2);
    let lost = 0;
    class LosingCluster extends Cluster {
      override async produceAll(batches: readonly PartitionBatch[]): Promise<(Error | undefined)[]> {
        const errors = await super.produceAll(batches);
        lost += 1;
        return lost % 2 === 1 ? errors.map(() => new Error("The response was lost")) : errors;
      }
    }
    const producer = new OrderedProducer(new LosingCluster(plainClient(broker)));
    for (const value of ["1", "2", "3"]) {
      await producer.send(
        "repeated",
        productIds.map((key) => ({ key, value, headers: {} })),
      );
    }
    await producer.close();
    assert.equal(lost, 6);
    const values = Map.groupBy(await readTopic(kafka, "repeated"), ({ key }) => String(key));
    assert.deepEqual(new Set(values.keys()), new Set(productIds));
    for (const [key, messages] of values) {
      assert.deepEqual(
        messages.map(({ value }) => String(value)),
        ["1", "2", "3"],
        key,
      );
    }
  });

  it("closing rejects a send to a broker that does not respond, before the request times out", async () => {
    const { broker } = platform;
    await broker.createTopic("paused", 1);
    let requests = 0;
    class CountingCluster extends Cluster {
      override produceAll(batches: readonly PartitionBatch[]): Promise<(Error | undefined)[]> {
        requests += 1;
        return super.produceAll(batches);
      }
    }
    const producer = new OrderedProducer(new CountingCluster(plainClient(broker)));
    const other = new Cluster(plainClient(broker));
    const message = { key: "k", value: "v", headers: {} };
    await producer.send("paused", [message]);
    const before = requests;
    await other.describeTopics(["paused"]);
    broker.pause();
    try {
      const request = other.describeTopics(["paused"]).then(
        () => "request answered",
        () => "request timed out",
      );
      const sent = assert.rejects(producer.send("paused", [message]), /The producer is closed/);
      await until(() => requests > before, "the request is sent");
      const closed = producer.close().then(() => "closed");
      assert.equal(await Promise.race([closed, request]), "closed");
      await sent;
    } finally {
      broker.resume();
      await other.close();
    }
  });

  it("a server that stops gracefully hands over at once", async () => {
    const first = await startTestApp(platform.environment);
    await until(
      async () => [...(await leasesOf()).values()].join() === "8",
      "the first has all",
      SETTLE_MS_MAX,
    );
    await first.stop();
    assert.equal((await leasesOf()).size, 0);
    assert.equal(await client.zcard(keys.publishers()), 0);
  });

  it("trimmed changes are replaced by the latest state of every product, and no state overtakes a change", async (t) => {
    await changeAll(4);
    for (let bucket = 0; bucket < keys.buckets; bucket++) {
      await client.xtrim(keys.changes(bucket), "MAXLEN", 3);
    }
    await using app = await startTestApp(platform.environment);
    let changing = true;
    const changes = (async () => {
      while (changing) {
        await changeAll();
      }
    })();
    const metric = async (name: string): Promise<number> => {
      const text = await (await fetch(`${app.adminUrl}/metrics`)).text();
      return Number(new RegExp(`^${name} (\\d+)$`, "m").exec(text)?.[1]);
    };
    await until(
      async () => (await metric("inventory_publish_snapshots_total")) === keys.buckets,
      "a snapshot of every bucket is published",
      SETTLE_MS_MAX,
    );
    changing = false;
    await changes;
    await untilPublished();

    const messages = await readTopic(platform.kafka, "inventory");
    const states = messages.filter((message) => publishedOf(message).reason === "snapshot");
    assert.deepEqual(new Set(states.map(({ key }) => String(key))), new Set(productIds));
    for (const state of states) {
      const { cause, delta, version } = publishedOf(state);
      assert.equal(cause, "CHANGE_CAUSE_UNSPECIFIED");
      assert.equal(delta, 0);
      assert.equal(headerOf(state, "eventId"), `${state.key}:${version}`);
    }
    assert.deepEqual(newestOf(messages), await newestVersions(), "consumers converge");
    assert.deepEqual(findOvertaken(messages), []);
    assert.equal(await metric("inventory_publish_snapshot_products_total"), PRODUCTS);
    t.diagnostic(`${messages.length} messages, ${states.length} of them states`);
  });

  it("while Kafka is unavailable the server serves and reports it; afterwards nothing is missing", async () => {
    await using app = await startTestApp(platform.environment);
    await untilPublished();
    await platform.broker.kill9();
    await changeAll(2);
    const { degraded, ready, details } = await until(
      async () => {
        const report = await reportOf(app);
        const expected = ["Sellers' events are not applied", "Changes are not published"];
        const isReported = expected.every((text) => report.degraded.some((each) => each.startsWith(text)));
        return isReported && report.details.kafka.publish.lagSeconds > 1 && report;
      },
      "both directions report that they are down",
      SETTLE_MS_MAX,
    );
    assert.equal(ready, true, degraded.join());
    assert.ok(details.kafka.publish.lagMessages > 0);
    await platform.broker.restart();
    await untilPublished();
    await until(
      async () => (await reportOf(app)).degraded.length === 0,
      "nothing is degraded",
      SETTLE_MS_MAX,
    );
    assert.deepEqual(newestOf(await readTopic(platform.kafka, "inventory")), await newestVersions());
  });
});

function publishedOf({ value }: Pick<KafkaMessage, "value">): Published {
  return JSON.parse(String(value)) as Published;
}

function newestOf(messages: readonly KafkaMessage[]): Map<string, number> {
  const newest = new Map<string, number>();
  for (const message of messages) {
    const productId = String(message.key);
    newest.set(productId, Math.max(newest.get(productId) ?? 0, Number(publishedOf(message).version)));
  }
  return newest;
}

interface Published {
  readonly version: string;
  readonly cause: string;
  readonly delta: number;
  readonly reason: string;
}

/** After a gap a product's version may skip numbers once; a version covered by a state must not follow as a change. */
function findOvertaken(messages: readonly KafkaMessage[]): string[] {
  const wrong: string[] = [];
  const products = new Map<string, { newest: number; state: number; leaps: number }>();
  for (const { key, value } of messages) {
    const { version, reason } = JSON.parse(String(value)) as Published;
    const productId = String(key);
    const known = products.get(productId) ?? { newest: 0, state: 0, leaps: 0 };
    const at = Number(version);
    if (at > known.newest + 1) {
      known.leaps += 1;
    }
    if (reason === "snapshot" && at > known.newest) {
      known.state = at;
    }
    if (reason !== "snapshot" && at <= known.state) {
      wrong.push(`${productId}: the change to ${at} comes after the state at ${known.state}`);
    }
    if (known.leaps > 1) {
      wrong.push(`${productId} goes ahead to ${at}, its leap number ${known.leaps}`);
    }
    known.newest = Math.max(known.newest, at);
    products.set(productId, known);
  }
  return wrong;
}
