import type { EachBatchPayload, Kafka, Message } from "kafkajs";
import type { KafkaSettings } from "./client.ts";
import { type DeadLetterOrigin, originOf, toRedriven } from "./dead-letters.ts";
import type { IncomingMessage } from "./decode.ts";
import { OrderedProducer } from "./ordered-producer.ts";

/** Maximum number of dead letters that are redriven together. */
const LETTERS_PER_SEND_MAX = 256;

interface RedriveOptions {
  readonly kafka: Kafka;
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
}

/** How many dead letters were found, and how many of them were redriven. */
export interface RedriveResult {
  readonly found: number;
  readonly redriven: number;
}

/** The first and last offset of each partition of the dead-letter topic in one run. */
type Range = Map<number, { next: bigint; readonly end: bigint }>;

/**
 * Sends the dead letters that were in the topic at the start back to their source topics. Progress is committed in a
 * consumer group of its own, `<group>-redrive`, after the messages before it were acknowledged: an interrupted run
 * leads to duplicates, which the store drops.
 */
export async function redrive(options: RedriveOptions): Promise<RedriveResult> {
  const { kafka, settings, signal } = options;
  const groupId = `${settings.group}-redrive`;
  const range = await rangeOf(kafka, settings.deadLetterTopic, groupId);
  const result = { found: 0, redriven: 0 };
  const isDone = () => [...range.values()].every(({ next, end }) => next >= end);
  if (isDone()) {
    return result;
  }
  const producer = new OrderedProducer(kafka);
  const consumer = kafka.consumer({ groupId, allowAutoTopicCreation: false });
  const ended = Promise.withResolvers<void>();
  const onAbort = () => ended.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  consumer.on(consumer.events.CRASH, ({ payload }) => ended.reject(payload.error));
  try {
    await consumer.connect();
    await consumer.subscribe({ topics: [settings.deadLetterTopic], fromBeginning: true });
    await consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      eachBatch: async (payload) => {
        await redriveBatch(payload, range, producer, options, result);
        if (isDone()) {
          ended.resolve();
        }
      },
    });
    await ended.promise;
  } finally {
    ended.promise.catch(() => {});
    signal.removeEventListener("abort", onAbort);
    await consumer.disconnect();
    await producer.close();
  }
  return result;
}

async function redriveBatch(
  { batch, resolveOffset, heartbeat, commitOffsetsIfNecessary }: EachBatchPayload,
  range: Range,
  producer: OrderedProducer,
  options: RedriveOptions,
  result: { found: number; redriven: number },
): Promise<void> {
  const { topic, partition } = batch;
  const place = range.get(partition);
  if (place === undefined) {
    return;
  }
  const letters = batch.messages
    .filter(({ offset }) => BigInt(offset) >= place.next && BigInt(offset) < place.end)
    .map((message): IncomingMessage => ({ ...message, topic, partition, headers: message.headers ?? {} }));
  for (let start = 0; start < letters.length; start += LETTERS_PER_SEND_MAX) {
    const part = letters.slice(start, start + LETTERS_PER_SEND_MAX);
    const last = part.at(-1);
    if (last === undefined) {
      return;
    }
    const byTopic = readLetters(part, options);
    const next = BigInt(last.offset) + 1n;
    if (!options.dryRun) {
      for (const [origin, messages] of byTopic) {
        await producer.send(origin, messages);
        result.redriven += messages.length;
      }
      const partitions = [{ partition, offset: next.toString() }];
      await commitOffsetsIfNecessary({ topics: [{ topic, partitions }] });
    }
    result.found += part.length;
    place.next = next;
    resolveOffset(last.offset);
    await heartbeat();
  }
  // Offsets without a message, such as those of transaction markers, are not waited for.
  const seen = BigInt(batch.lastOffset()) + 1n;
  place.next = seen > place.next ? seen : place.next;
}

function readLetters(letters: readonly IncomingMessage[], options: RedriveOptions): Map<string, Message[]> {
  const { productTopic, collectionTopic } = options.settings;
  const byTopic = new Map<string, Message[]>();
  for (const letter of letters) {
    const named = originOf(letter.headers);
    const origin =
      named !== undefined && [productTopic, collectionTopic].includes(named.topic) ? named : undefined;
    options.onLetter({ partition: letter.partition, offset: letter.offset, origin });
    if (origin !== undefined) {
      const messages = byTopic.get(origin.topic) ?? [];
      messages.push(toRedriven(letter, origin));
      byTopic.set(origin.topic, messages);
    }
  }
  return byTopic;
}

async function rangeOf(kafka: Kafka, topic: string, groupId: string): Promise<Range> {
  const admin = kafka.admin();
  await admin.connect();
  try {
    const ends = await admin.fetchTopicOffsets(topic);
    const [committed] = await admin.fetchOffsets({ groupId, topics: [topic] });
    return new Map(
      ends.map(({ partition, high, low }) => {
        const offset = committed?.partitions.find((each) => each.partition === partition)?.offset ?? "-1";
        const next = BigInt(offset) > BigInt(low) ? BigInt(offset) : BigInt(low);
        return [partition, { next, end: BigInt(high) }];
      }),
    );
  } finally {
    await admin.disconnect();
  }
}
