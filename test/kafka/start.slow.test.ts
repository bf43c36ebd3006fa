import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { pino } from "pino";
import { ConfigError, readConfig } from "../../server/config.ts";
import { startTestApp } from "../support/app.ts";
import { freePort } from "../support/free-port.ts";
import { startKafka } from "../support/kafka-broker.ts";
import { until } from "../support/until.ts";
import { createTopics, plainClient, produce, productMessage, skip, untilConsumed } from "./platform.ts";

interface KafkaDetails {
  readonly ingest: { readonly lagMessages: number | null; readonly lagSeconds: number };
  readonly publish: null;
}

const RECOVERY_MS_MAX = 30_000;

describe("a server whose broker is unavailable at its start", { skip }, () => {
  it("serves, reports what is missing, and starts when the broker and its topics appear", async () => {
    const lines: string[] = [];
    const log = pino({ level: "info" }, { write: (line: string) => void lines.push(line) });
    const port = await freePort();
    const environment = { KAFKA_BROKERS: `127.0.0.1:${port}`, ADMIN_PORT: "0" };
    // No broker is running, so the server has not waited for one.
    await using app = await startTestApp(environment, { log });
    assert.equal(app.backends.events, `Kafka at 127.0.0.1:${port}`);
    const readiness = async (url: string | undefined) => {
      const answer = await fetch(`${url}/readyz`);
      return {
        status: answer.status,
        report: (await answer.json()) as { degraded: string[]; details: unknown },
      };
    };
    const missing = await until(
      async () => {
        const found = await readiness(app.url);
        return found.report.degraded.some((each) => /ECONNREFUSED/.test(each)) && found;
      },
      "the health report names the broker",
      RECOVERY_MS_MAX,
    );
    assert.equal(missing.status, 200);
    const { ingest, publish } = (missing.report.details as { kafka: KafkaDetails }).kafka;
    assert.equal(ingest.lagMessages, null);
    await until(
      async () => {
        const { details } = (await readiness(app.url)).report as { details: { kafka: KafkaDetails } };
        return details.kafka.ingest.lagSeconds > ingest.lagSeconds;
      },
      "the lag grows while the brokers cannot be asked",
      RECOVERY_MS_MAX,
    );
    assert.equal(publish, null);
    await until(async () => {
      const [report, sameReport] = await Promise.all([readiness(app.url), readiness(app.adminUrl)]);
      assert.deepEqual(sameReport, report);
      return true;
    }, "the admin server reports the same");
    assert.match(lines.join(), /The Kafka brokers cannot be reached/);
    assert.match(lines.join(), /no changes are published: the embedded store has no outbox/);

    await using broker = await startKafka({ own: true, port });
    await until(
      async () => (await readiness(app.url)).report.degraded.some((each) => /topic/.test(each)),
      "the health report names the topics",
      RECOVERY_MS_MAX,
    );
    const metrics = await fetch(`${app.adminUrl}/metrics`);
    assert.match(metrics.headers.get("content-type") ?? "", /^text\/plain/);
    const replaced = /^inventory_consumers_replaced_total (\d+)$/m.exec(await metrics.text())?.[1];
    assert.equal(Number(replaced), 0, "a topic that does not exist is not a fault of the consumer");

    await createTopics(broker);
    const kafka = plainClient(broker);
    await produce(kafka, "product", [productMessage("Create", { id: "p", quantity: 4 })]);
    await untilConsumed(kafka);
    assert.deepEqual((await readiness(app.url)).report.degraded, []);
    const stock = await fetch(`${app.url}/inventory.v1.StockService/GetStock`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ productId: "p" }),
    });
    assert.equal(((await stock.json()) as { stock: { available: number } }).stock.available, 4);
    assert.equal((await fetch(`${app.adminUrl}/healthz`)).status, 200);
    assert.equal((await fetch(`${app.adminUrl}/elsewhere`)).status, 404);
  });
});

describe("without KAFKA_BROKERS and ADMIN_PORT", () => {
  it("there are no events, no admin server, and nothing of either in the health report", async () => {
    await using app = await startTestApp();
    assert.equal(app.backends.events, "none");
    assert.equal(app.adminUrl, undefined);
    assert.partialDeepStrictEqual(await (await fetch(`${app.url}/readyz`)).json(), {
      ready: true,
      reasons: [],
    });
  });
});

describe("the settings of Kafka", () => {
  const faults: [string, NodeJS.ProcessEnv, RegExp][] = [
    ["a broker without a port", { KAFKA_BROKERS: "kafka" }, /KAFKA_BROKERS is "kafka"; must be host:port/],
    [
      "an invalid topic name",
      { KAFKA_PRODUCT_TOPIC: "a b" },
      /KAFKA_PRODUCT_TOPIC is "a b"; must have 1 to 249/,
    ],
    ["two equal topics", { KAFKA_INVENTORY_TOPIC: "product" }, /KAFKA_PRODUCT_TOPIC has the same value/],
    ["a login without its password", { KAFKA_SASL_USERNAME: "u" }, /must be set together/],
    ["an unknown mechanism", { KAFKA_SASL_MECHANISM: "gssapi" }, /must be one of plain, scram/],
  ];
  for (const [name, environment, message] of faults) {
    it(`refuse ${name}`, () => {
      assert.throws(
        () => readConfig(environment),
        (error) => error instanceof ConfigError && message.test(error.message),
      );
    });
  }

  it("have the platform's names by default", () => {
    const { kafka } = readConfig({
      KAFKA_BROKERS: "a:1, b:2",
      KAFKA_SASL_USERNAME: "u",
      KAFKA_SASL_PASSWORD: "p",
    });
    assert.deepEqual(kafka, {
      brokers: ["a:1", "b:2"],
      group: "inventory",
      productTopic: "product",
      collectionTopic: "collection",
      inventoryTopic: "inventory",
      deadLetterTopic: "product.inventory.dead-letter",
      createTopics: false,
      topicPartitions: 3,
      deadLetterWaitMs: 60_000,
      ssl: false,
      sasl: { mechanism: "scram-sha-512", username: "u", password: "p" },
    });
  });
});
