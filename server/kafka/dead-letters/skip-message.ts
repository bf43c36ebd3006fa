import { setTimeout as wait } from "node:timers/promises";
import type { KafkaClient, KafkaSettings } from "../kafkajs/client.ts";
import type { Cluster } from "../kafkajs/cluster.ts";
import { BrokerError, ErrorCode, TOO_LARGE } from "../kafkajs/errors.ts";
import { GroupMember } from "../kafkajs/group-member.ts";
import { crc32c } from "../kafkajs/internals.ts";
import { encodeBatch } from "../records/encode-batch.ts";
import { type DeadLetter, toBatchLetter, toDeadLetter } from "./dead-letters.ts";
import { type Found, findMessage, type MessagePlace } from "./find-message.ts";

const DETAIL = "skipped by an operator";
/** A commit is refused while the group is rebalancing. */
const COMMIT_ATTEMPTS_MAX = 20;
const COMMIT_RETRY_MS = 500;

interface SkipOptions {
  readonly kafka: KafkaClient;
  readonly cluster: Cluster;
  readonly settings: KafkaSettings;
  readonly place: MessagePlace;
  readonly signal: AbortSignal;
}

/** A skip that was refused: nothing was changed. */
export class SkipRefused extends Error {}

export interface Skipped {
  /** The group's new offset. */
  readonly next: bigint;
  /** What was kept in the dead-letter topic. */
  readonly copy: "whole" | "shortened" | "none";
  /** Why the copy is not whole. */
  readonly problem: string | undefined;
}

/**
 * Moves the consumer group past the message at which a partition waits, and keeps a copy of it in the dead-letter topic if
 * that is possible. Throws `NoSuchPlace`, or `SkipRefused` if the group's offset is not that of the message.
 *
 * Brokers accept offsets for a group with members from its members only, so the caller joins as one. Its leave causes a
 * rebalance, after which each server reads the committed offsets again. Servers take no other part: they may be of any
 * number, and need not respond.
 */
export async function skipMessage({
  kafka,
  cluster,
  settings,
  place,
  signal,
}: SkipOptions): Promise<Skipped> {
  const { group, productTopic, collectionTopic } = settings;
  const described = await cluster.describeTopics([productTopic, collectionTopic]);
  const topics = described.filter(({ errorCode }) => errorCode === ErrorCode.none).map(({ name }) => name);
  if (!topics.includes(place.topic)) {
    throw new SkipRefused(`topic is ${place.topic}; the group ${group} reads ${topics.join(" and ")}`);
  }
  const found = await findWaiting(cluster, group, place);
  const member = await GroupMember.join({ kafka, group, topics, onAssigned: () => {} }, signal);
  try {
    // Servers may have gone on before the join.
    await checkWaiting(cluster, group, place);
    const copy = await keepCopy(cluster, settings.deadLetterTopic, place, found);
    const next = nextAfter(place, found);
    await commit(member, place, next, signal);
    return { next, ...copy };
  } finally {
    await member.leave();
  }
}

/** The offset of the next message that the group will read from a partition; the earliest one without a commit. */
export async function groupOffset(
  cluster: Cluster,
  group: string,
  { topic, partition }: MessagePlace,
  earliest: bigint,
): Promise<bigint> {
  const [committed] = await cluster.committedOffsets(group, [{ topic, partition }]);
  const offset = committed?.offset ?? earliest;
  return offset > earliest ? offset : earliest;
}

async function findWaiting(cluster: Cluster, group: string, place: MessagePlace): Promise<Found> {
  const { found } = await findMessage(cluster, place);
  if (found.kind === "none") {
    throw new SkipRefused(`There is no message to skip at offset ${place.offset}: ${found.reason}`);
  }
  await checkWaiting(cluster, group, place);
  return found;
}

async function checkWaiting(cluster: Cluster, group: string, place: MessagePlace): Promise<void> {
  const { topic, partition, offset } = place;
  const earliest = await cluster.earliestOffset(place);
  const committed = await groupOffset(cluster, group, place, earliest);
  if (committed !== offset) {
    throw new SkipRefused(
      `offset is ${offset}; the group ${group} is at offset ${committed} of ${topic} partition ${partition}, and only the message there can be skipped`,
    );
  }
}

/** A batch that cannot be decoded is skipped as a whole: none of its messages can be read. */
function nextAfter({ offset }: MessagePlace, found: Found): bigint {
  return (found.kind === "batch" ? found.batch.lastOffset : offset) + 1n;
}

async function keepCopy(
  cluster: Cluster,
  topic: string,
  place: MessagePlace,
  found: Found,
): Promise<Pick<Skipped, "copy" | "problem">> {
  const letter = letterOf(found);
  if (letter === undefined) {
    return { copy: "none", problem: "the message cannot be read" };
  }
  const failure = await produce(cluster, topic, place, letter.record);
  if (failure === undefined) {
    return { copy: letter.record === letter.shortened ? "shortened" : "whole", problem: undefined };
  }
  const isTooLarge = failure instanceof BrokerError && TOO_LARGE.has(failure.code);
  const second = isTooLarge ? await produce(cluster, topic, place, letter.shortened) : failure;
  return { copy: second === undefined ? "shortened" : "none", problem: (second ?? failure).message };
}

function letterOf(found: Found): DeadLetter | undefined {
  switch (found.kind) {
    case "message":
      return toDeadLetter(found.message, "skipped", DETAIL, Date.now());
    case "batch":
      return toBatchLetter({ ...found.batch, reason: `${DETAIL}: ${found.batch.reason}` }, Date.now());
    default:
      return undefined;
  }
}

async function produce(
  cluster: Cluster,
  topic: string,
  { partition }: MessagePlace,
  record: DeadLetter["record"],
): Promise<Error | undefined> {
  try {
    const partitions = await cluster.partitionsOf(topic);
    const target = partitions[partition % partitions.length] ?? 0;
    await cluster.produce({ topic, partition: target, batch: await encodeBatch([record], crc32c) });
    return undefined;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

async function commit(
  member: GroupMember,
  place: MessagePlace,
  next: bigint,
  signal: AbortSignal,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await member.commit(place, next);
      return;
    } catch (error) {
      if (attempt === COMMIT_ATTEMPTS_MAX || signal.aborted) {
        throw error;
      }
      await wait(COMMIT_RETRY_MS, undefined, { signal });
    }
  }
}
