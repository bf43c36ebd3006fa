/** The requests of Kafka's protocol that write records, see https://kafka.apache.org/protocol. */
import type { ProtocolRequest } from "./connections.ts";
import { ApiKey } from "./protocol.ts";
import { RequestWriter, ResponseReader } from "./wire.ts";

const ACKS_ALL = -1;

/** An encoded batch, and the partition that it is for. */
export interface PartitionBatch {
  readonly topic: string;
  readonly partition: number;
  readonly batch: Buffer;
}

export interface ProducedPartition {
  readonly topic: string;
  readonly partition: number;
  readonly errorCode: number;
  readonly detail: string | null;
}

/** Sends batches of records, acknowledged by all in-sync replicas. Version 8 has error messages. */
export function produceRequest(
  batches: readonly PartitionBatch[],
  timeoutMs: number,
): (maxVersion: number) => ProtocolRequest {
  return (maxVersion) => ({
    apiKey: ApiKey.produce,
    apiName: "Produce",
    apiVersion: maxVersion >= 8 ? 8 : 3,
    body: new RequestWriter()
      .string(null)
      .int16(ACKS_ALL)
      .int32(timeoutMs)
      .array(batches, (writer, { topic, partition, batch }) =>
        writer.string(topic).int32(1).int32(partition).int32Bytes(batch),
      ).written,
  });
}

export function readProduce(response: Buffer, version: number): ProducedPartition[] {
  const reader = new ResponseReader(response);
  const topics = reader.array(() => {
    const topic = reader.string();
    return reader.array(() => {
      const [partition, errorCode] = [reader.int32(), reader.int16()];
      reader.skip(16);
      if (version < 8) {
        return { topic, partition, errorCode, detail: null };
      }
      reader.skip(8);
      const messages = reader.array(() => {
        reader.int32();
        return reader.nullableString();
      });
      const detail = reader.nullableString() ?? messages.find((each) => each !== null) ?? null;
      return { topic, partition, errorCode, detail };
    });
  });
  return topics.flat();
}

/** Identifies an idempotent producer. */
export interface ProducerIdentity {
  readonly producerId: bigint;
  readonly producerEpoch: number;
}

/** Asks for the identity of a producer without transactions. */
export function initProducerIdRequest(timeoutMs: number): () => ProtocolRequest {
  return () => ({
    apiKey: ApiKey.initProducerId,
    apiName: "InitProducerId",
    apiVersion: 1,
    body: new RequestWriter().string(null).int32(timeoutMs).written,
  });
}

export function readInitProducerId(response: Buffer): ProducerIdentity & { errorCode: number } {
  const reader = new ResponseReader(response);
  reader.int32();
  return { errorCode: reader.int16(), producerId: reader.int64(), producerEpoch: reader.int16() };
}
