import type { IncomingMessage } from "../ingest/message.ts";
import { readRange } from "../ingest/read-range.ts";
import type { KafkaClient, KafkaSettings } from "../kafkajs/client.ts";
import { Cluster, keyOf } from "../kafkajs/cluster.ts";
import { BrokerError, TOO_LARGE } from "../kafkajs/errors.ts";
import { crc32c } from "../kafkajs/internals.ts";
import { encodeBatch } from "../records/encode-batch.ts";
import { type DeadLetterOrigin, originOf, REDRIVE_HEADER, toRedriven } from "./dead-letters.ts";

interface RedriveOptions {
  readonly kafka: KafkaClient;
  readonly settings: KafkaSettings;
  /** Only report the dead letters; send nothing, and commit no offsets. */
  readonly dryRun: boolean;
  /** Called once for each dead letter. */
  readonly onLetter: (letter: RedriveLetter) => void;
  readonly signal: AbortSignal;
}

/** A record of the dead-letter topic. */
export interface RedriveLetter {
  readonly partition: number;
  readonly offset: string;
  /** Absent if the record is not a dead letter of this service, or is from a topic that it does not read. */
  readonly origin: DeadLetterOrigin | undefined;
  /** Why the original was not sent; `undefined` if it was, or would have been. */
  readonly problem: string | undefined;
}

/** How many dead letters were found, and how many of them were redriven. */
export interface RedriveResult {
  readonly found: number;
  readonly redriven: number;
}

/**
 * Sends the dead letters that were in the topic at the start back to their source topics and partitions. Progress is
 * committed in a consumer group of its own, `<group>-redrive`, after the messages before it were acknowledged: an
 * interrupted run leads to duplicates, which the store drops.
 */
export async function redrive(options: RedriveOptions): Promise<RedriveResult> {
  const { kafka, settings, dryRun, onLetter, signal } = options;
  const [group, topic] = [`${settings.group}-redrive`, settings.deadLetterTopic];
  const cluster = new Cluster(kafka);
  const result = { found: 0, redriven: 0 };
  try {
    const partitions = (await cluster.partitionsOf(topic)).map((partition) => ({ topic, partition }));
    const committed = await cluster.committedOffsets(group, partitions);
    for (const { earliest, latest, ...partition } of await cluster.ranges(partitions)) {
      const offset = committed.find((each) => keyOf(each) === keyOf(partition))?.offset ?? earliest;
      for await (const { messages, next } of readRange(cluster, partition, offset, latest)) {
        for (const letter of messages) {
          signal.throwIfAborted();
          const origin = sourceOf(letter, settings);
          const problem = origin && (await returnToSource(cluster, letter, origin, dryRun));
          onLetter({ partition: letter.partition, offset: letter.offset, origin, problem });
          result.found += 1;
          result.redriven += origin === undefined || problem !== undefined ? 0 : 1;
        }
        if (!dryRun) {
          await cluster.commitOffset(group, partition, next);
        }
      }
    }
  } finally {
    await cluster.close();
  }
  return result;
}

/** The origin of a dead letter, if this service reads its topic. */
function sourceOf(letter: IncomingMessage, settings: KafkaSettings): DeadLetterOrigin | undefined {
  const origin = originOf(letter.headers);
  const topics = [settings.productTopic, settings.collectionTopic];
  return origin !== undefined && topics.includes(origin.topic) ? origin : undefined;
}

/** Sends the original of a letter to its topic. Returns why that is not possible. */
async function returnToSource(
  cluster: Cluster,
  letter: IncomingMessage,
  origin: DeadLetterOrigin,
  dryRun: boolean,
): Promise<string | undefined> {
  if (origin.reason === "unreadable-batch") {
    return "a batch cannot be redriven";
  }
  const original = origin.isShortened ? await readOriginal(cluster, origin) : letter;
  if (original === undefined) {
    return "shortened, and the original has been deleted from its topic";
  }
  if (dryRun) {
    return undefined;
  }
  try {
    await resend(cluster, original, origin);
    return undefined;
  } catch (error) {
    if (error instanceof BrokerError && TOO_LARGE.has(error.code)) {
      return `the topic does not accept it with the header ${REDRIVE_HEADER} (${error.message})`;
    }
    throw error;
  }
}

/** Sends a message to the partition that it came from, with its key, value, headers and time. */
export async function resend(
  cluster: Cluster,
  message: IncomingMessage,
  { topic, partition, timestamp }: Pick<DeadLetterOrigin, "topic" | "partition" | "timestamp">,
): Promise<void> {
  await cluster.produce({
    topic,
    partition,
    batch: await encodeBatch([toRedriven(message, timestamp)], crc32c),
  });
}

/** Reads the message at an offset; `undefined` if it has been deleted. */
export async function readOriginal(
  cluster: Cluster,
  { topic, partition, offset }: Pick<DeadLetterOrigin, "topic" | "partition" | "offset">,
): Promise<IncomingMessage | undefined> {
  const position = BigInt(offset);
  for await (const { messages } of readRange(cluster, { topic, partition }, position, position + 1n)) {
    const found = messages.find((message) => message.offset === offset);
    if (found !== undefined) {
      return found;
    }
  }
  return undefined;
}
