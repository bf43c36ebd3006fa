import type { IHeaders, Message } from "kafkajs";
import type { DeadLetterReason, IncomingHeaders, IncomingMessage, Undeliverable } from "./decode.ts";

/** Prefix of the headers that describe the dead letter. All other headers are the original's. */
const HEADER_PREFIX = "inventory-dead-letter-";
/** Header that counts how often a message was redriven, in decimal digits. */
export const REDRIVE_HEADER = "inventory-redrive";
const DETAIL_CHARACTERS_MAX = 500;

const header = (name: string): string => `${HEADER_PREFIX}${name}`;

/** The origin of a dead letter and the reason for it. */
export interface DeadLetterOrigin {
  readonly topic: string;
  readonly partition: number;
  readonly offset: string;
  /** The original record's time, ms since 1970. It replaces `updatedAt` if the event has none. */
  readonly timestamp: string;
  readonly reason: DeadLetterReason | string;
  readonly detail: string;
}

/** Builds a dead letter: the original key, value and headers, plus headers with the reason, the origin and the time. */
export function toDeadLetter(message: IncomingMessage, why: Undeliverable, nowMs: number): Message {
  return {
    key: message.key,
    value: message.value,
    headers: {
      ...sendable(message.headers),
      [header("reason")]: why.reason,
      [header("detail")]: why.detail.slice(0, DETAIL_CHARACTERS_MAX).toWellFormed(),
      [header("topic")]: message.topic,
      [header("partition")]: String(message.partition),
      [header("offset")]: message.offset,
      [header("timestamp")]: message.timestamp,
      [header("time")]: new Date(nowMs).toISOString(),
    },
  };
}

/** Parses a dead letter's headers; `undefined` if the record is not a dead letter. */
export function originOf(headers: IncomingHeaders): DeadLetterOrigin | undefined {
  const text = (name: string): string | undefined => {
    const value = headers[header(name)];
    // A message that was dead-lettered twice has its newest headers last.
    return (Array.isArray(value) ? value.at(-1) : value)?.toString();
  };
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
  };
}

/** Restores the original message for its topic: key, value, headers and time, with the redrive count incremented. */
export function toRedriven(letter: IncomingMessage, origin: DeadLetterOrigin): Message {
  const original = Object.entries(letter.headers).filter(([name]) => !name.startsWith(HEADER_PREFIX));
  const before = Number(last(letter.headers[REDRIVE_HEADER]) ?? 0);
  return {
    key: letter.key,
    value: letter.value,
    timestamp: origin.timestamp,
    headers: {
      ...sendable(Object.fromEntries(original)),
      [REDRIVE_HEADER]: String(Number.isSafeInteger(before) ? before + 1 : 1),
    },
  };
}

function last(value: IncomingHeaders[string]): string | undefined {
  return (Array.isArray(value) ? value.at(-1) : value)?.toString();
}

/** Headers for kafkajs. A null value becomes an empty one, because kafkajs cannot encode null. */
function sendable(headers: IncomingHeaders): IHeaders {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name, Array.isArray(value) ? [...value] : (value ?? "")]),
  );
}
