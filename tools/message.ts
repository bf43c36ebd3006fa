/**
 * Shows the message at an offset of a topic, and with `--skip` moves the consumer group past it.
 * Takes the service's settings from the environment: KAFKA_BROKERS and the rest.
 */
import { parseArgs } from "node:util";
import { pino } from "pino";
import { ConfigError, readConfig } from "../server/config.ts";
import { describeFound } from "../server/kafka/dead-letters/describe-message.ts";
import { findMessage, type MessagePlace } from "../server/kafka/dead-letters/find-message.ts";
import { printable } from "../server/kafka/dead-letters/printable.ts";
import { groupOffset, skipMessage } from "../server/kafka/dead-letters/skip-message.ts";
import { createKafka, type KafkaSettings } from "../server/kafka/kafkajs/client.ts";
import { Cluster } from "../server/kafka/kafkajs/cluster.ts";

const usage = "npm run message -- TOPIC PARTITION OFFSET [--skip]";
const exitBadUsage = 2;
const columnWidth = 11;
/** A rebalance waits for each server, for ten seconds if it does not respond. */
const skipMsMax = 60_000;

class UsageError extends Error {}

try {
  const { place, skip } = readArguments();
  const { kafka: settings } = readConfig();
  if (settings === undefined) {
    throw new ConfigError("KAFKA_BROKERS is not set; it must be host:port,host:port,…");
  }
  await run(settings, place, skip);
} catch (error) {
  process.stderr.write(`${printable(error instanceof Error ? error.message : String(error))}\n`);
  process.exitCode = error instanceof ConfigError || error instanceof UsageError ? exitBadUsage : 1;
}

function readArguments(): { place: MessagePlace; skip: boolean } {
  let parsed: { values: { skip: boolean }; positionals: string[] };
  try {
    parsed = parseArgs({ allowPositionals: true, options: { skip: { type: "boolean", default: false } } });
  } catch (error) {
    throw new UsageError(`${error instanceof Error ? error.message : String(error)}; usage: ${usage}`);
  }
  const { values, positionals } = parsed;
  const [topic, partition, offset] = positionals;
  if (topic === undefined || partition === undefined || offset === undefined || positionals.length > 3) {
    throw new UsageError(`usage: ${usage}`);
  }
  if (!/^\d{1,9}$/.test(partition)) {
    throw new UsageError(`partition is "${partition}"; it must be a whole number from 0`);
  }
  if (!/^\d{1,18}$/.test(offset)) {
    throw new UsageError(`offset is "${offset}"; it must be a whole number from 0`);
  }
  return { place: { topic, partition: Number(partition), offset: BigInt(offset) }, skip: values.skip };
}

async function run(settings: KafkaSettings, place: MessagePlace, skip: boolean): Promise<void> {
  const kafka = createKafka(settings, "message", pino({ level: "silent" }));
  const cluster = new Cluster(kafka);
  try {
    await show(cluster, settings, place);
    if (skip) {
      const signal = AbortSignal.timeout(skipMsMax);
      const { next, copy, problem } = await skipMessage({ kafka, cluster, settings, place, signal });
      const suffix = problem === undefined ? "" : `: ${printable(problem)}`;
      print("copy", `${copy === "none" ? "none" : `${copy}, in ${settings.deadLetterTopic}`}${suffix}`);
      print("skipped", `the group ${settings.group} is at offset ${next}; servers continue there`);
    }
  } finally {
    await cluster.close();
  }
}

async function show(cluster: Cluster, settings: KafkaSettings, place: MessagePlace): Promise<void> {
  const { group, productTopic, collectionTopic } = settings;
  const { found, range } = await findMessage(cluster, place);
  const subject =
    place.topic === productTopic ? "product" : place.topic === collectionTopic ? "collection" : undefined;
  for (const [name, text] of describeFound(place, found, subject)) {
    print(name, text);
  }
  if (subject !== undefined) {
    const offset = await groupOffset(cluster, group, place, range.earliest);
    print("group", `${group} is at offset ${offset}${offset === place.offset ? ", this message" : ""}`);
  }
}

function print(name: string, text: string): void {
  process.stdout.write(`${name.padEnd(columnWidth)}${text}\n`);
}
