import type { IHeaders, Message } from "kafkajs";
import type { DeadLetterReason, IncomingHeaders, IncomingMessage, Undeliverable } from "./decode.ts";

/** What tells of the dead letter itself. All else among its headers is the original's. */
const HEADER_PREFIX = "inventory-dead-letter-";
/** How often a message was sent back from the dead letters, in decimal digits. */
export const REDRIVE_HEADER = "inventory-redrive";
const DETAIL_CHARACTERS_MAX = 500;

const header = (name: string): string => `${HEADER_PREFIX}${name}`;

/** Where a dead letter came from, and why it is one. */
export interface DeadLetterOrigin {
  readonly topic: string;
  readonly partition: number;
  readonly offset: string;
  /** The original record's time, ms since 1970: it stands for `updatedAt` where the event has none. */
  readonly timestamp: string;
  readonly reason: DeadLetterReason | string;
  readonly detail: string;
}

/** A message as it goes to the dead-letter topic: key, value and headers as they came, and headers that say why, where from and when. */
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

/** Reads a dead letter's headers; `undefined` where they are not those of one. */
export function originOf(headers: IncomingHeaders): DeadLetterOrigin | undefined {
  const text = (name: string): string | undefined => {
    const value = headers[header(name)];
    // A letter that died twice has its newest headers last.
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

/**
 * The original message again, for the topic that it came from: key, value, headers and time as they
 * were, and one more in the count of its returns.
 */
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

/** Headers for kafkajs to send; one without a value gets an empty one, since kafkajs cannot write null. */
function sendable(headers: IncomingHeaders): IHeaders {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name, Array.isArray(value) ? [...value] : (value ?? "")]),
  );
}
