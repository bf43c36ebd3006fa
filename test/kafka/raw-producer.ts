import { gzipSync, zstdCompressSync } from "node:zlib";
import type { Cluster } from "../../server/kafka/kafkajs/cluster.ts";
import { crc32c } from "../../server/kafka/kafkajs/internals.ts";
import { RecordHeaders } from "../../server/kafka/records/headers.ts";
import { ByteWriter } from "../../server/kafka/records/varint.ts";

export type RawHeader = readonly [name: Buffer, value: Buffer | null];

/** A record with everything that a broker accepts. */
export interface RawRecord {
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: readonly RawHeader[];
  /** ms since 1970; may be anything. */
  readonly timestamp: bigint;
}

export const CODECS = ["none", "gzip", "snappy", "lz4", "zstd"] as const;
export type Codec = (typeof CODECS)[number];

export const TYPE_UPDATE: RawHeader = [Buffer.from("MessageType"), Buffer.from("Update")];

export function record(value: object | Buffer | null, part: Partial<RawRecord> = {}): RawRecord {
  const bytes = value === null || Buffer.isBuffer(value) ? value : Buffer.from(JSON.stringify(value));
  return { key: null, value: bytes, headers: [TYPE_UPDATE], timestamp: BigInt(Date.now()), ...part };
}

export function encodeHeaders(headers: readonly RawHeader[]): RecordHeaders {
  const writer = new ByteWriter();
  for (const [name, value] of headers) {
    writer.nullable(name).nullable(value);
  }
  return new RecordHeaders(headers.length, writer.written);
}

/** One batch in the format of Kafka 0.11 and later. */
export function encodeRawBatch(records: readonly RawRecord[], codec: Codec): Buffer {
  const first = records[0]?.timestamp ?? 0n;
  const body = new ByteWriter();
  for (const [index, { key, value, headers, timestamp }] of records.entries()) {
    const encoded = new ByteWriter()
      .append(Buffer.from([0]))
      .varlong(timestamp - first)
      .varint(index)
      .nullable(key)
      .nullable(value)
      .varint(headers.length)
      .append(encodeHeaders(headers).bytes);
    body.varint(encoded.length).append(encoded.written);
  }
  const payload = compress(body.written, codec);
  const batch = Buffer.alloc(61 + payload.length);
  payload.copy(batch, 61);
  batch.writeInt32BE(batch.length - 12, 8);
  batch.writeInt32BE(-1, 12);
  batch.writeInt8(2, 16);
  batch.writeInt16BE(CODECS.indexOf(codec), 21);
  batch.writeInt32BE(records.length - 1, 23);
  batch.writeBigInt64BE(first, 27);
  const times = records.map(({ timestamp }) => timestamp).sort((a, b) => Number(a - b));
  batch.writeBigInt64BE(times.at(-1) ?? first, 35);
  batch.writeBigInt64BE(-1n, 43);
  batch.writeInt16BE(-1, 51);
  batch.writeInt32BE(-1, 53);
  batch.writeInt32BE(records.length, 57);
  batch.writeUInt32BE(crc32c(batch.subarray(21)) >>> 0, 17);
  return batch;
}

/** Writes a batch, and returns the offset of its first record. Nobody else may write to the partition. */
export async function produceRaw(
  cluster: Cluster,
  topic: string,
  partition: number,
  records: readonly RawRecord[],
  codec: Codec = "none",
): Promise<bigint> {
  await cluster.partitionsOf(topic);
  const [range] = await cluster.ranges([{ topic, partition }]);
  await cluster.produce({ topic, partition, batch: encodeRawBatch(records, codec) });
  return range?.latest ?? 0n;
}

function compress(bytes: Buffer, codec: Codec): Buffer {
  switch (codec) {
    case "none":
      return bytes;
    case "gzip":
      return gzipSync(bytes);
    case "zstd":
      return zstdCompressSync(bytes);
    case "snappy":
      return literalSnappy(bytes);
    case "lz4":
      return literalLz4(bytes);
  }
}

/** Snappy of literals alone: valid, and not smaller. */
function literalSnappy(bytes: Buffer): Buffer {
  const parts: Buffer[] = [unsignedVarint(bytes.length)];
  for (let at = 0; at < bytes.length; at += 65_536) {
    const literal = bytes.subarray(at, at + 65_536);
    const header = Buffer.alloc(3);
    header.writeUInt8(61 << 2, 0);
    header.writeUInt16LE(literal.length - 1, 1);
    parts.push(header, literal);
  }
  return Buffer.concat(parts);
}

/** An LZ4 frame of uncompressed blocks. The checksum of its header is the one that Java requires. */
function literalLz4(bytes: Buffer): Buffer {
  const parts: Buffer[] = [Buffer.from("04224d18604082", "hex")];
  for (let at = 0; at < bytes.length; at += 65_536) {
    const block = bytes.subarray(at, at + 65_536);
    const size = Buffer.alloc(4);
    size.writeUInt32LE((block.length | 0x80000000) >>> 0);
    parts.push(size, block);
  }
  return Buffer.concat([...parts, Buffer.alloc(4)]);
}

function unsignedVarint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 0x7f; rest >>>= 7) {
    bytes.push((rest & 0x7f) | 0x80);
  }
  bytes.push(rest);
  return Buffer.from(bytes);
}
