/** The requests of Kafka's protocol that this service sends itself, see https://kafka.apache.org/protocol. */
import type { AbortedTransaction } from "../records/batch.ts";
import type { Node, ProtocolRequest } from "./connections.ts";
import { RequestWriter, ResponseReader } from "./wire.ts";

export const ApiKey = {
  produce: 0,
  fetch: 1,
  listOffsets: 2,
  metadata: 3,
  offsetCommit: 8,
  offsetFetch: 9,
  findCoordinator: 10,
  initProducerId: 22,
} as const;

/** Offsets that ListOffsets understands in place of a time. */
export const LATEST = -1n;
export const EARLIEST = -2n;

const CONSUMER = -1;
const READ_UNCOMMITTED = 0;
const READ_COMMITTED = 1;

export interface TopicMetadata {
  readonly errorCode: number;
  readonly name: string;
  /** Unlike that of a deleted topic of the same name. Undefined before Kafka 2.8. */
  readonly id: string | undefined;
  readonly partitions: readonly { readonly partition: number; readonly leader: number }[];
}

/** Asks for topics by name, and creates none. Version 10 and later have topic IDs. */
export function metadataRequest(topics: readonly string[]): (maxVersion: number) => ProtocolRequest {
  return (maxVersion) => {
    const writer = new RequestWriter();
    if (maxVersion < 10) {
      writer.array(topics, (each, topic) => each.string(topic)).int8(0);
      return { apiKey: ApiKey.metadata, apiName: "Metadata", apiVersion: 5, body: writer.written };
    }
    // A flexible version: its request header ends with tagged fields.
    writer.noTags().unsignedVarint(topics.length + 1);
    for (const topic of topics) {
      writer.append(Buffer.alloc(16)).compactString(topic).noTags();
    }
    writer.int8(0).int8(0).int8(0).noTags();
    return { apiKey: ApiKey.metadata, apiName: "Metadata", apiVersion: 10, body: writer.written };
  };
}

export function readMetadata(response: Buffer, version: number): { nodes: Node[]; topics: TopicMetadata[] } {
  const reader = new ResponseReader(response);
  return version < 10 ? readMetadataV5(reader) : readMetadataV10(reader);
}

function readMetadataV5(reader: ResponseReader): { nodes: Node[]; topics: TopicMetadata[] } {
  reader.int32();
  const nodes = reader.array((each) => ({
    nodeId: each.int32(),
    host: each.string(),
    port: each.int32(),
    rack: each.nullableString(),
  }));
  reader.nullableString();
  reader.int32();
  const topics = reader.array((each) => {
    const [errorCode, name] = [each.int16(), each.string()];
    each.int8();
    const partitions = each.array(() => {
      each.int16();
      const [partition, leader] = [each.int32(), each.int32()];
      for (let list = 0; list < 3; list++) {
        each.array(() => each.int32());
      }
      return { partition, leader };
    });
    return { errorCode, name, id: undefined, partitions };
  });
  return { nodes, topics };
}

function readMetadataV10(reader: ResponseReader): { nodes: Node[]; topics: TopicMetadata[] } {
  reader.skipTags();
  reader.int32();
  const nodes = reader.compactArray((each) => {
    const [nodeId, host, port] = [each.int32(), each.compactNullableString() ?? "", each.int32()];
    const rack = each.compactNullableString();
    each.skipTags();
    return { nodeId, host, port, rack };
  });
  reader.compactNullableString();
  reader.int32();
  const topics = reader.compactArray((each) => {
    const [errorCode, name, id] = [each.int16(), each.compactNullableString() ?? "", each.uuid()];
    each.int8();
    const partitions = each.compactArray(() => {
      each.int16();
      const [partition, leader] = [each.int32(), each.int32()];
      each.int32();
      for (let list = 0; list < 3; list++) {
        each.compactArray(() => each.int32());
      }
      each.skipTags();
      return { partition, leader };
    });
    each.int32();
    each.skipTags();
    return { errorCode, name, id, partitions };
  });
  return { nodes, topics };
}

export interface FetchPartition {
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
  readonly bytesMax: number;
}

export interface FetchOptions {
  readonly partitions: readonly FetchPartition[];
  /** How long the broker waits for a first record. */
  readonly waitMs: number;
  readonly bytesMax: number;
  /** Without the records of open and aborted transactions. */
  readonly isCommittedOnly: boolean;
}

export interface FetchedPartition {
  readonly topic: string;
  readonly partition: number;
  readonly errorCode: number;
  /** The offset after the last record. */
  readonly highWatermark: bigint;
  /** The first offset of an open transaction, or the high watermark. */
  readonly lastStableOffset: bigint;
  readonly abortedTransactions: readonly AbortedTransaction[];
  readonly records: Buffer;
}

/** Versions 4 to 11: the former is the first of Kafka 0.11, the latter the last before topic names may be replaced by IDs. */
export function fetchRequest(options: FetchOptions): (maxVersion: number) => ProtocolRequest {
  const { partitions, waitMs, bytesMax, isCommittedOnly } = options;
  return (maxVersion) => {
    const version = Math.min(maxVersion, 11);
    const writer = new RequestWriter().int32(CONSUMER).int32(waitMs).int32(1).int32(bytesMax);
    writer.int8(isCommittedOnly ? READ_COMMITTED : READ_UNCOMMITTED);
    if (version >= 7) {
      // No fetch session: each request lists its partitions.
      writer.int32(0).int32(-1);
    }
    // One topic entry for each partition keeps their order, in which brokers fill the response.
    writer.array(partitions, (each, { topic, partition, offset, bytesMax }) => {
      each.string(topic).int32(1).int32(partition);
      if (version >= 9) {
        each.int32(-1);
      }
      each.int64(offset);
      if (version >= 5) {
        each.int64(-1n);
      }
      each.int32(bytesMax);
    });
    if (version >= 7) {
      writer.int32(0);
    }
    if (version >= 11) {
      writer.string("");
    }
    return {
      apiKey: ApiKey.fetch,
      apiName: "Fetch",
      apiVersion: version,
      body: writer.written,
      holdMs: waitMs,
    };
  };
}

export function readFetch(
  response: Buffer,
  version: number,
): { errorCode: number; partitions: FetchedPartition[] } {
  const reader = new ResponseReader(response);
  reader.int32();
  const errorCode = version >= 7 ? reader.int16() : 0;
  if (version >= 7) {
    reader.int32();
  }
  const partitions = reader.array((each) => {
    const topic = each.string();
    return each.array(() => readFetchedPartition(each, topic, version));
  });
  return { errorCode, partitions: partitions.flat() };
}

function readFetchedPartition(reader: ResponseReader, topic: string, version: number): FetchedPartition {
  const [partition, errorCode, highWatermark] = [reader.int32(), reader.int16(), reader.int64()];
  const lastStableOffset = reader.int64();
  if (version >= 5) {
    reader.int64();
  }
  const abortedTransactions = reader.array(() => ({
    producerId: reader.int64(),
    firstOffset: reader.int64(),
  }));
  if (version >= 11) {
    reader.int32();
  }
  const records = reader.int32Bytes();
  return { topic, partition, errorCode, highWatermark, lastStableOffset, abortedTransactions, records };
}

export interface PartitionOffset {
  readonly topic: string;
  readonly partition: number;
  readonly errorCode: number;
  readonly offset: bigint;
}

type TopicPartitions = readonly { readonly topic: string; readonly partitions: readonly number[] }[];

/** `time` is in ms since 1970, `LATEST` (the high watermark) or `EARLIEST`. */
export function listOffsetsRequest(topics: TopicPartitions, time: bigint): () => ProtocolRequest {
  return () => ({
    apiKey: ApiKey.listOffsets,
    apiName: "ListOffsets",
    apiVersion: 2,
    body: new RequestWriter()
      .int32(CONSUMER)
      .int8(READ_UNCOMMITTED)
      .array(topics, (writer, { topic, partitions }) =>
        writer.string(topic).array(partitions, (each, partition) => each.int32(partition).int64(time)),
      ).written,
  });
}

export function readListOffsets(response: Buffer): PartitionOffset[] {
  const reader = new ResponseReader(response);
  reader.int32();
  const topics = reader.array(() => {
    const topic = reader.string();
    return reader.array(() => {
      const [partition, errorCode] = [reader.int32(), reader.int16()];
      reader.int64();
      return { topic, partition, errorCode, offset: reader.int64() };
    });
  });
  return topics.flat();
}

export function findCoordinatorRequest(group: string): () => ProtocolRequest {
  return () => ({
    apiKey: ApiKey.findCoordinator,
    apiName: "FindCoordinator",
    apiVersion: 1,
    body: new RequestWriter().string(group).int8(0).written,
  });
}

export function readCoordinator(response: Buffer): { errorCode: number; detail: string | null; node: Node } {
  const reader = new ResponseReader(response);
  reader.int32();
  const [errorCode, detail] = [reader.int16(), reader.nullableString()];
  const node = { nodeId: reader.int32(), host: reader.string(), port: reader.int32(), rack: null };
  return { errorCode, detail, node };
}

export function offsetFetchRequest(group: string, topics: TopicPartitions): () => ProtocolRequest {
  return () => ({
    apiKey: ApiKey.offsetFetch,
    apiName: "OffsetFetch",
    apiVersion: 2,
    body: new RequestWriter()
      .string(group)
      .array(topics, (writer, { topic, partitions }) =>
        writer.string(topic).array(partitions, (each, partition) => each.int32(partition)),
      ).written,
  });
}

/** The offset of a partition without a commit is -1. */
export function readOffsetFetch(response: Buffer): { errorCode: number; partitions: PartitionOffset[] } {
  const reader = new ResponseReader(response);
  const topics = reader.array(() => {
    const topic = reader.string();
    return reader.array(() => {
      const [partition, offset] = [reader.int32(), reader.int64()];
      reader.nullableString();
      return { topic, partition, offset, errorCode: reader.int16() };
    });
  });
  return { errorCode: reader.int16(), partitions: topics.flat() };
}

/** Commits for a group that has no members. */
export function offsetCommitRequest(
  group: string,
  { topic, partition }: { readonly topic: string; readonly partition: number },
  offset: bigint,
): () => ProtocolRequest {
  return () => ({
    apiKey: ApiKey.offsetCommit,
    apiName: "OffsetCommit",
    apiVersion: 2,
    body: new RequestWriter()
      .string(group)
      .int32(-1)
      .string("")
      .int64(-1n)
      .array([offset], (writer) => writer.string(topic).int32(1).int32(partition).int64(offset).string(null))
      .written,
  });
}

/** The error code of the one partition. */
export function readOffsetCommit(response: Buffer): number {
  const reader = new ResponseReader(response);
  const codes = reader.array(() => {
    reader.string();
    return reader.array(() => {
      reader.int32();
      return reader.int16();
    });
  });
  return codes.flat()[0] ?? -1;
}
