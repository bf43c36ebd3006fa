/**
 * Runs a Kafka broker for development in the foreground, as the tests do: one node on 127.0.0.1:9092 (or KAFKA_PORT)
 * with the service's topics. Ctrl-C stops it and removes its data.
 */
import { once } from "node:events";
import { DEAD_LETTER_BYTES_MAX } from "../server/kafka/topic-config.ts";
import { startKafka } from "../test/support/kafka-broker.ts";
import { findJavaKafka, need } from "../test/support/programs.ts";

const topics = {
  product: 3,
  collection: 3,
  inventory: 3,
  "product.inventory.dead-letter": {
    partitions: 3,
    // A dead letter has more headers than its original.
    config: { "max.message.bytes": String(DEAD_LETTER_BYTES_MAX), "retention.ms": "-1" },
  },
};
const portDefault = 9092;
const portMax = 65_535;

const { KAFKA_PORT } = process.env;
const port = KAFKA_PORT ? Number(KAFKA_PORT) : portDefault;

if (!Number.isInteger(port) || port < 1 || port > portMax) {
  fail(`KAFKA_PORT is "${KAFKA_PORT}"; it must be a number from 1 to ${portMax}`, 2);
} else if (findJavaKafka() === undefined) {
  fail(`There is ${need("own-kafka").missing}. "npm run provision" installs what is missing.`, 1);
} else {
  await serve(port).catch((error: unknown) =>
    fail(error instanceof Error ? error.message : String(error), 1),
  );
}

function fail(message: string, exitCode: number): void {
  process.stderr.write(`${message}\n`);
  process.exitCode = exitCode;
}

async function serve(port: number): Promise<void> {
  const ended = Promise.race([once(process, "SIGINT"), once(process, "SIGTERM")]);
  await using broker = await startKafka({ port, topics, own: true });
  process.stdout.write(`Topics: ${Object.keys(topics).join(", ")}. Ctrl-C stops it.\n`);
  process.stdout.write(`KAFKA_BROKERS=${broker.brokers.join(",")}\n`);
  const keepAlive = setInterval(() => undefined, 1 << 30);
  await ended;
  clearInterval(keepAlive);
}
