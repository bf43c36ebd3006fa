import type { Kafka } from "kafkajs";
import { Connections, REQUEST_MS_MAX } from "./connections.ts";
import { BrokerError, ErrorCode, throwIfError } from "./errors.ts";
import {
  initProducerIdRequest,
  type PartitionBatch,
  type ProducedPartition,
  type ProducerIdentity,
  produceRequest,
  readInitProducerId,
  readProduce,
} from "./produce-protocol.ts";
import {
  ApiKey,
  EARLIEST,
  type FetchedPartition,
  type FetchOptions,
  fetchRequest,
  findCoordinatorRequest,
  LATEST,
  listOffsetsRequest,
  metadataRequest,
  offsetCommitRequest,
  offsetFetchRequest,
  type PartitionOffset,
  readCoordinator,
  readFetch,
  readListOffsets,
  readMetadata,
  readOffsetCommit,
  readOffsetFetch,
  type TopicMetadata,
} from "./protocol.ts";

export interface TopicPartition {
  readonly topic: string;
  readonly partition: number;
}

/** The committed offset of a partition, and where its records begin and end. */
export interface PartitionRange extends TopicPartition {
  readonly earliest: bigint;
  /** The offset after the last record. */
  readonly latest: bigint;
}

/**
 * Reads and writes records, and reads metadata and offsets. Unlike kafkajs's consumer, producer and admin client it
 * reports errors by topic and partition, so that one that fails does not affect the others.
 */
export class Cluster {
  readonly #connections: Connections;
  readonly #leaders = new Map<string, number>();
  readonly #partitions = new Map<string, readonly number[]>();

  constructor(kafka: Kafka) {
    this.#connections = new Connections(kafka);
  }

  async close(): Promise<void> {
    await this.#connections.close();
  }

  /** Metadata of topics, with an error code each. Refreshes the addresses and leaders that the other methods use. */
  async describeTopics(names: readonly string[]): Promise<TopicMetadata[]> {
    const { response, version } = await this.#connections.send(
      undefined,
      ApiKey.metadata,
      metadataRequest(names),
    );
    const { nodes, topics } = readMetadata(response, version);
    this.#connections.setNodes(nodes);
    for (const { name, partitions, errorCode } of topics) {
      this.#partitions.delete(name);
      if (errorCode === ErrorCode.none) {
        this.#partitions.set(
          name,
          partitions.map(({ partition }) => partition).sort((a, b) => a - b),
        );
      }
      for (const { partition, leader } of partitions) {
        this.#leaders.set(keyOf({ topic: name, partition }), leader);
      }
    }
    return topics;
  }

  /** The partitions of a topic, from the latest metadata. Throws if the topic does not exist. */
  async partitionsOf(topic: string): Promise<readonly number[]> {
    if (!this.#partitions.has(topic)) {
      const [described] = await this.describeTopics([topic]);
      throwIfError(described?.errorCode ?? ErrorCode.unknownTopicOrPartition);
    }
    return this.#partitions.get(topic) ?? [];
  }

  /** The broker that leads a partition, from the latest metadata. Throws if there is none. */
  async leaderOf(partition: TopicPartition): Promise<number> {
    if (!this.#leaders.has(keyOf(partition))) {
      const [topic] = await this.describeTopics([partition.topic]);
      throwIfError(topic?.errorCode ?? ErrorCode.unknownTopicOrPartition);
    }
    const leader = this.#leaders.get(keyOf(partition));
    if (leader === undefined) {
      throw new BrokerError(ErrorCode.unknownTopicOrPartition);
    }
    if (leader < 0) {
      this.forgetLeader(partition);
      throw new BrokerError(ErrorCode.leaderNotAvailable);
    }
    return leader;
  }

  /** To be called after an error that says that the leader has changed. */
  forgetLeader(partition: TopicPartition): void {
    this.#leaders.delete(keyOf(partition));
  }

  /** Fetches from partitions that one broker leads. Their errors are in the result. */
  async fetch(nodeId: number, options: FetchOptions): Promise<FetchedPartition[]> {
    const { response, version } = await this.#connections.send(nodeId, ApiKey.fetch, fetchRequest(options));
    const { errorCode, partitions } = readFetch(response, version);
    throwIfError(errorCode);
    return partitions;
  }

  /** Where the records of partitions begin and end. Leaves out partitions that cannot be asked now. */
  async ranges(partitions: readonly TopicPartition[]): Promise<PartitionRange[]> {
    const [earliest, latest] = await Promise.all([
      this.#offsets(partitions, EARLIEST),
      this.#offsets(partitions, LATEST),
    ]);
    return partitions.flatMap((partition) => {
      const [first, end] = [earliest.get(keyOf(partition)), latest.get(keyOf(partition))];
      return first === undefined || end === undefined ? [] : [{ ...partition, earliest: first, latest: end }];
    });
  }

  /** The offset of the first record of a partition that is not deleted. */
  async earliestOffset(partition: TopicPartition): Promise<bigint> {
    const nodeId = await this.leaderOf(partition);
    const [found] = await this.#listOffsets(nodeId, [partition], EARLIEST);
    throwIfError(found?.errorCode ?? ErrorCode.unknownTopicOrPartition);
    return found?.offset ?? 0n;
  }

  /** The offsets that a group has committed; `undefined` where it has none. */
  async committedOffsets(
    group: string,
    partitions: readonly TopicPartition[],
  ): Promise<(TopicPartition & { readonly offset: bigint | undefined })[]> {
    const coordinator = await this.#coordinatorOf(group);
    const { response } = await this.#connections.send(
      coordinator,
      ApiKey.offsetFetch,
      offsetFetchRequest(group, byTopic(partitions)),
    );
    const committed = readOffsetFetch(response);
    throwIfError(committed.errorCode);
    return committed.partitions.map(({ topic, partition, errorCode, offset }) => {
      throwIfError(errorCode);
      return { topic, partition, offset: offset < 0n ? undefined : offset };
    });
  }

  /** Commits the offset of the next message to read, for a group that has no members. */
  async commitOffset(group: string, partition: TopicPartition, offset: bigint): Promise<void> {
    const coordinator = await this.#coordinatorOf(group);
    const request = offsetCommitRequest(group, partition, offset);
    const { response } = await this.#connections.send(coordinator, ApiKey.offsetCommit, request);
    throwIfError(readOffsetCommit(response));
  }

  /** Writes one encoded batch, acknowledged by all in-sync replicas. */
  async produce(batch: PartitionBatch): Promise<void> {
    const [error] = await this.produceAll([batch]);
    if (error !== undefined) {
      throw error;
    }
  }

  /**
   * Writes encoded batches, at most one for each partition, acknowledged by all in-sync replicas. Resolves with the error of
   * each, or `undefined` if it was written.
   */
  async produceAll(batches: readonly PartitionBatch[]): Promise<(Error | undefined)[]> {
    const errors = new Map<PartitionBatch, Error>();
    const byLeader = new Map<number, PartitionBatch[]>();
    for (const batch of batches) {
      try {
        const leader = await this.leaderOf(batch);
        byLeader.set(leader, [...(byLeader.get(leader) ?? []), batch]);
      } catch (error) {
        errors.set(batch, toError(error));
      }
    }
    await Promise.all(
      [...byLeader].map(async ([nodeId, led]) => {
        const outcomes = await this.#produceTo(nodeId, led).catch(toError);
        for (const batch of led) {
          const error = outcomes instanceof Error ? outcomes : errorOf(outcomes.get(keyOf(batch)));
          if (error !== undefined) {
            errors.set(batch, error);
          }
        }
      }),
    );
    for (const { topic, partition } of errors.keys()) {
      // The leader may have changed, or the topic. A wrong guess costs one request for metadata.
      this.forgetLeader({ topic, partition });
      this.#partitions.delete(topic);
    }
    return batches.map((batch) => errors.get(batch));
  }

  /** The identity of a new idempotent producer. */
  async initProducerId(): Promise<ProducerIdentity> {
    const request = initProducerIdRequest(REQUEST_MS_MAX);
    const { response } = await this.#connections.send(undefined, ApiKey.initProducerId, request);
    const { errorCode, ...identity } = readInitProducerId(response);
    throwIfError(errorCode);
    return identity;
  }

  async #produceTo(
    nodeId: number,
    batches: readonly PartitionBatch[],
  ): Promise<Map<string, ProducedPartition>> {
    const request = produceRequest(batches, REQUEST_MS_MAX);
    const { response, version } = await this.#connections.send(nodeId, ApiKey.produce, request);
    return new Map(readProduce(response, version).map((each) => [keyOf(each), each]));
  }

  /** The broker that coordinates a group. */
  async #coordinatorOf(group: string): Promise<number> {
    const { response } = await this.#connections.send(
      undefined,
      ApiKey.findCoordinator,
      findCoordinatorRequest(group),
    );
    const { errorCode, detail, node } = readCoordinator(response);
    throwIfError(errorCode, detail);
    if (!this.#connections.knows(node.nodeId)) {
      await this.describeTopics([]);
    }
    return node.nodeId;
  }

  async #offsets(partitions: readonly TopicPartition[], time: bigint): Promise<Map<string, bigint>> {
    const byLeader = new Map<number, TopicPartition[]>();
    for (const partition of partitions) {
      const leader = this.#leaders.get(keyOf(partition));
      if (leader !== undefined && leader >= 0) {
        byLeader.set(leader, [...(byLeader.get(leader) ?? []), partition]);
      }
    }
    const found = await Promise.all(
      [...byLeader].map(([nodeId, led]) => this.#listOffsets(nodeId, led, time)),
    );
    return new Map(
      found
        .flat()
        .filter(({ errorCode }) => errorCode === ErrorCode.none)
        .map((each) => [keyOf(each), each.offset]),
    );
  }

  async #listOffsets(
    nodeId: number,
    partitions: readonly TopicPartition[],
    time: bigint,
  ): Promise<PartitionOffset[]> {
    const { response } = await this.#connections.send(
      nodeId,
      ApiKey.listOffsets,
      listOffsetsRequest(byTopic(partitions), time),
    );
    const offsets = readListOffsets(response);
    for (const each of offsets) {
      if (each.errorCode !== ErrorCode.none) {
        this.forgetLeader(each);
      }
    }
    return offsets;
  }
}

/** A key for maps of partitions. */
export function keyOf({ topic, partition }: TopicPartition): string {
  return `${partition} ${topic}`;
}

/** The error of a batch. `produced` is absent if the response does not name its partition. */
function errorOf(produced: ProducedPartition | undefined): Error | undefined {
  const { errorCode, detail } = produced ?? {
    errorCode: ErrorCode.unknown,
    detail: "the response names no partition",
  };
  return errorCode === ErrorCode.none ? undefined : new BrokerError(errorCode, detail);
}

function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

function byTopic(partitions: readonly TopicPartition[]): { topic: string; partitions: number[] }[] {
  const topics = new Map<string, number[]>();
  for (const { topic, partition } of partitions) {
    topics.set(topic, [...(topics.get(topic) ?? []), partition]);
  }
  return [...topics].map(([topic, each]) => ({ topic, partitions: each }));
}
