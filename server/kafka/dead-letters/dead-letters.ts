import { DEAD_LETTER_REASONS, type DeadLetterReason } from "../ingest/decode.ts";
import type { IncomingMessage } from "../ingest/message.ts";
import type { OutgoingRecord } from "../records/encode-batch.ts";
import { RecordHeaders } from "../records/headers.ts";
import type { UnreadableBatch } from "../records/read-records.ts";

/** Prefix of the headers that describe the dead letter. All other headers are the original's. */
const HEADER_PREFIX = "inventory-dead-letter-";
/** Header that counts how often a message was redriven, in decimal digits. */
export const REDRIVE_HEADER = "inventory-redrive";
const DETAIL_CHARACTERS_MAX = 500;
/** The part of the original's key that a shortened letter has. */
const SHORT_KEY_BYTES_MAX = 128;
const SHORT_TYPE_BYTES_MAX = 64;

/**
 * Reasons that are not found by decoding an event.
 *
 * - `too-large`: the record is larger than this service reads.
 * - `unreadable-batch`: a batch of records cannot be decompressed or decoded.
 * - `internal-error`: applying this event fails with an internal error, while others are applied.
 */
const OTHER_REASONS = ["too-large", "unreadable-batch", "internal-error"] as const;
export const ALL_DEAD_LETTER_REASONS = [...DEAD_LETTER_REASONS, ...OTHER_REASONS] as const;
/** `skipped`: an operator moved the consumer group past the message. Servers do not send it. */
export type AnyDeadLetterReason = DeadLetterReason | (typeof OTHER_REASONS)[number] | "skipped";

const header = (name: string): string => `${HEADER_PREFIX}${name}`;

/** A record for the dead-letter topic, and where it came from. */
export interface DeadLetter {
  readonly topic: string;
  readonly partition: number;
  readonly offset: string;
  readonly key: Buffer | null;
  readonly reason: AnyDeadLetterReason;
  readonly detail: string;
  readonly record: OutgoingRecord;
  /** Without the value and with a part of the key, for a topic that does not accept the whole. */
  readonly shortened: OutgoingRecord;
}

/** The origin of a dead letter and the reason for it. */
export interface DeadLetterOrigin {
  readonly topic: string;
  readonly partition: number;
  readonly offset: string;
  /** The original record's time, ms since 1970. It replaces `updatedAt` if the event has none. */
  readonly timestamp: string;
  readonly reason: string;
  readonly detail: string;
  /** True if the letter does not contain the original, which is at `offset` of its topic until that is deleted. */
  readonly isShortened: boolean;
}

/** Builds a dead letter: the original key, value and headers, plus headers with the reason, the origin and the time. */
export function toDeadLetter(
  message: IncomingMessage,
  reason: AnyDeadLetterReason,
  detail: string,
  nowMs: number,
): DeadLetter {
  const { topic, partition, offset, key, value, headers } = message;
  const description = describe(message, reason, detail, nowMs);
  const timestamp = BigInt(nowMs);
  const type = headers.last("MessageType")?.subarray(0, SHORT_TYPE_BYTES_MAX);
  const sizes = `key=${key?.length ?? "null"},value=${value?.length ?? "null"},headers=${headers.bytes.length}`;
  const shortened = {
    key: key?.subarray(0, SHORT_KEY_BYTES_MAX) ?? null,
    value: null,
    headers: RecordHeaders.of([
      ...(type === undefined ? [] : [["MessageType", type] as const]),
      ...description,
      [
        header("shortened"),
        message.oversizedBytes === undefined ? sizes : `record=${message.oversizedBytes}`,
      ],
    ]),
    timestamp,
  };
  const record =
    message.oversizedBytes === undefined
      ? { key, value, headers: headers.with(description), timestamp }
      : shortened;
  return { topic, partition, offset, key, reason, detail, record, shortened };
}

/** Builds a dead letter of a batch that cannot be decoded: its value is the batch as the broker stores it. */
export function toBatchLetter(batch: UnreadableBatch, nowMs: number): DeadLetter {
  const { topic, partition, firstOffset, lastOffset, timestamp, reason: detail, bytes } = batch;
  const [reason, offset] = ["unreadable-batch" as const, firstOffset.toString()];
  const headers = [
    ...describe({ topic, partition, offset, timestamp }, reason, detail, nowMs),
    [header("last-offset"), lastOffset.toString()] as const,
  ];
  const record = { key: null, value: bytes, headers: RecordHeaders.of(headers), timestamp: BigInt(nowMs) };
  const shortened = {
    ...record,
    value: null,
    headers: record.headers.with([[header("shortened"), `batch=${bytes.length}`]]),
  };
  return { topic, partition, offset, key: null, reason, detail, record, shortened };
}

function describe(
  {
    topic,
    partition,
    offset,
    timestamp,
  }: Pick<IncomingMessage, "topic" | "partition" | "offset" | "timestamp">,
  reason: AnyDeadLetterReason,
  detail: string,
  nowMs: number,
): (readonly [string, string])[] {
  return [
    [header("reason"), reason],
    [header("detail"), detail.slice(0, DETAIL_CHARACTERS_MAX).toWellFormed()],
    [header("topic"), topic],
    [header("partition"), String(partition)],
    [header("offset"), offset],
    [header("timestamp"), timestamp],
    [header("time"), new Date(nowMs).toISOString()],
  ];
}

/** Parses a dead letter's headers; `undefined` if the record is not a dead letter. */
export function originOf(headers: RecordHeaders): DeadLetterOrigin | undefined {
  // A message that was dead-lettered twice has its newest headers last.
  const text = (name: string): string | undefined => headers.text(header(name));
  const [topic, partition, offset, timestamp] = ["topic", "partition", "offset", "timestamp"].map(text);
  if (topic === undefined || partition === undefined || offset === undefined || timestamp === undefined) {
    return undefined;
  }
  return {
    topic,
    partition: Number(partition),
    offset,
    timestamp,
    reason: text("reason") ?? "",
    detail: text("detail") ?? "",
    isShortened: headers.last(header("shortened")) !== undefined,
  };
}

/** Restores the original message for its topic: key, value, headers and time, with the redrive count incremented. */
export function toRedriven(letter: IncomingMessage, timestamp: string): OutgoingRecord {
  const before = Number(letter.headers.text(REDRIVE_HEADER) ?? 0);
  const count = Number.isSafeInteger(before) ? before + 1 : 1;
  return {
    key: letter.key,
    value: letter.value,
    timestamp: /^-?\d{1,18}$/.test(timestamp) ? BigInt(timestamp) : -1n,
    headers: letter.headers
      .without(HEADER_PREFIX)
      .without(REDRIVE_HEADER)
      .with([[REDRIVE_HEADER, String(count)]]),
  };
}
