import type { IncomingMessage } from "../ingest/message.ts";
import { readRange } from "../ingest/read-range.ts";
import type { Cluster, PartitionRange, TopicPartition } from "../kafkajs/cluster.ts";
import { BrokerError, ErrorCode } from "../kafkajs/errors.ts";
import type { UnreadableBatch } from "../records/read-records.ts";

/** The place of a message. */
export interface MessagePlace extends TopicPartition {
  readonly offset: bigint;
}

/** What a partition has at an offset. */
export type Found =
  | { readonly kind: "message"; readonly message: IncomingMessage }
  /** The offset is in a batch that cannot be decoded. */
  | { readonly kind: "batch"; readonly batch: UnreadableBatch }
  /** The broker returns an error for this offset. */
  | { readonly kind: "error"; readonly reason: string }
  /** No message, and consumers go on by themselves. */
  | { readonly kind: "none"; readonly reason: string };

/** A topic, partition or offset that does not exist. */
export class NoSuchPlace extends Error {}

/** Reads the message at a place, and where its partition begins and ends. Throws `NoSuchPlace`. */
export async function findMessage(
  cluster: Cluster,
  place: MessagePlace,
): Promise<{ found: Found; range: PartitionRange }> {
  const range = await rangeOf(cluster, place);
  const { earliest, latest } = range;
  if (place.offset < earliest || place.offset >= latest) {
    const bounds = earliest === latest ? "no messages" : `the offsets ${earliest} to ${latest - 1n}`;
    throw new NoSuchPlace(
      `offset is ${place.offset}; ${place.topic} partition ${place.partition} has ${bounds}`,
    );
  }
  try {
    return { found: await read(cluster, place), range };
  } catch (error) {
    return {
      found: { kind: "error", reason: error instanceof Error ? error.message : String(error) },
      range,
    };
  }
}

async function rangeOf(cluster: Cluster, { topic, partition }: TopicPartition): Promise<PartitionRange> {
  let partitions: readonly number[];
  try {
    partitions = await cluster.partitionsOf(topic);
  } catch (error) {
    if (error instanceof BrokerError && error.code === ErrorCode.unknownTopicOrPartition) {
      throw new NoSuchPlace(`topic is ${topic}; the brokers have no such topic`);
    }
    throw error;
  }
  if (!partitions.includes(partition)) {
    throw new NoSuchPlace(
      `partition is ${partition}; topic ${topic} has the partitions 0 to ${partitions.length - 1}`,
    );
  }
  const [range] = await cluster.ranges([{ topic, partition }]);
  if (range === undefined) {
    throw new Error(`The leader of ${topic} partition ${partition} does not respond`);
  }
  return range;
}

async function read(cluster: Cluster, { topic, partition, offset }: MessagePlace): Promise<Found> {
  for await (const slice of readRange(cluster, { topic, partition }, offset, offset + 1n)) {
    const message = slice.messages.find((each) => BigInt(each.offset) === offset);
    if (message !== undefined) {
      return { kind: "message", message };
    }
    const batch = slice.unreadable;
    if (batch !== undefined && batch.firstOffset <= offset && offset <= batch.lastOffset) {
      return { kind: "batch", batch };
    }
    if (slice.next > offset) {
      return {
        kind: "none",
        reason: "a transaction marker, a record of an aborted transaction, or removed by compaction",
      };
    }
  }
  return { kind: "none", reason: "held back by an open transaction; it can be read when that ends" };
}
