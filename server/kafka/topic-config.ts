import type { KafkaSettings } from "./kafkajs/client.ts";
import type { WantedTopic } from "./topics.ts";

/** A broker's default `max.message.bytes`. */
const MESSAGE_BYTES_MAX = 1_048_588;
/**
 * Room for the headers that are added to a dead letter, and for a batch that compresses worse here than at its producer.
 */
export const DEAD_LETTER_BYTES_MAX = 2 * MESSAGE_BYTES_MAX;

/**
 * The service's topics and their configurations. None is compacted: the keys of sellers' events are arbitrary, consumers
 * of `inventory` rely on every change, and each dead letter counts. Dead letters are kept until an operator deletes them.
 */
export function wantedTopics(settings: KafkaSettings, publishes: boolean): WantedTopic[] {
  const config = (entries: Readonly<Record<string, string>>) =>
    settings.createTopics
      ? { partitions: settings.topicPartitions, entries: { "cleanup.policy": "delete", ...entries } }
      : undefined;
  const source = config({ "max.message.bytes": String(MESSAGE_BYTES_MAX) });
  return [
    {
      name: settings.productTopic,
      consequence: "events of products are not ingested",
      config: source,
    },
    {
      name: settings.collectionTopic,
      consequence: "events of collections are not ingested",
      config: source,
    },
    {
      name: settings.deadLetterTopic,
      consequence: "messages that cannot be applied wait, and are then only logged",
      config: config({ "max.message.bytes": String(DEAD_LETTER_BYTES_MAX), "retention.ms": "-1" }),
    },
    ...(publishes
      ? [{ name: settings.inventoryTopic, consequence: "changes are not published", config: source }]
      : []),
  ];
}
