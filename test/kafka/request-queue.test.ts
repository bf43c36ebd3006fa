import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { startKafka } from "../support/kafka-broker.ts";
import { isListening, logLines, startMain } from "../support/main-run.ts";
import { until } from "../support/until.ts";
import { createTopics, skip } from "./platform.ts";

const READY_MS_MAX = 30_000;

describe("a server with Kafka", { skip }, () => {
  it("prints no warning of Node.js: kafkajs sets no timer with a negative delay", async () => {
    await using broker = await startKafka({ own: true });
    await createTopics(broker);
    await using main = startMain({ KAFKA_BROKERS: broker.brokers.join(","), LOG_FORMAT: "json" });
    await isListening(main);
    const url = logLines(main.stdout()).find((line) => line["url"] !== undefined)?.["url"];
    await until(
      async () => {
        const { degraded } = (await (await fetch(`${url}/readyz`)).json()) as { degraded: string[] };
        return degraded.length === 0;
      },
      "the server consumes",
      READY_MS_MAX,
    );
    main.signal("SIGTERM");
    assert.equal(await main.exit, 0);
    assert.equal(main.stderr(), "");
  });
});
