import { decodeMessage, type Subject } from "../ingest/decode.ts";
import type { IncomingMessage } from "../ingest/message.ts";
import type { UnreadableBatch } from "../records/read-records.ts";
import type { Found, MessagePlace } from "./find-message.ts";
import { printable, printableBytes } from "./printable.ts";

const KEY_BYTES_SHOWN = 200;
const HEADERS_SHOWN = 20;
const HEADER_BYTES_SHOWN = 100;
const VALUE_BYTES_SHOWN = 1_000;
/** Times outside of what `Date` can show are shown as a number only. */
const DATE_MS_MAX = 8.64e15;

/** A name and what belongs to it, one line of output each. */
type Line = readonly [name: string, text: string];

/**
 * Describes what is at a place, for a terminal. Foreign data is shortened and escaped. `subject` is what the topic's
 * messages describe; `undefined` if the service does not read the topic.
 */
export function describeFound(place: MessagePlace, found: Found, subject: Subject | undefined): Line[] {
  const lines: Line[] = [
    ["topic", printable(place.topic)],
    ["partition", String(place.partition)],
    ["offset", String(place.offset)],
  ];
  switch (found.kind) {
    case "message":
      return [...lines, ...describeMessage(found.message, subject)];
    case "batch":
      return [...lines, ...describeBatch(found.batch)];
    case "error":
      return [...lines, ["message", `cannot be read: ${printable(found.reason)}`]];
    case "none":
      return [...lines, ["message", `none: ${found.reason}`]];
  }
}

function describeMessage(message: IncomingMessage, subject: Subject | undefined): Line[] {
  const { timestamp, key, value, headers, oversizedBytes } = message;
  const lines: Line[] = [
    ["timestamp", timeText(timestamp)],
    ["key", key === null ? "none" : printableBytes(key, KEY_BYTES_SHOWN)],
  ];
  if (oversizedBytes !== undefined) {
    lines.push(["size", `${oversizedBytes} bytes`], ["value", "not read: the record is too large"]);
  } else {
    const [keyBytes, valueBytes, headerBytes] = [key?.length ?? 0, value?.length ?? 0, headers.bytes.length];
    const total = keyBytes + valueBytes + headerBytes;
    lines.push(
      ...describeHeaders(message),
      ["size", `${total} bytes: key ${keyBytes}, headers ${headerBytes}, value ${valueBytes}`],
      ["value", value === null ? "none" : printableBytes(value, VALUE_BYTES_SHOWN)],
    );
  }
  if (subject !== undefined) {
    lines.push(["decodes", decodingOf(message, subject)]);
  }
  return lines;
}

function describeHeaders({ headers }: IncomingMessage): Line[] {
  const lines: Line[] = [];
  for (const { name, value } of headers) {
    if (lines.length === HEADERS_SHOWN) {
      lines.push(["header", `… and ${headers.count - HEADERS_SHOWN} more`]);
      break;
    }
    const shown = value === null ? "none" : printableBytes(value, HEADER_BYTES_SHOWN);
    lines.push(["header", `${printableBytes(name, HEADER_BYTES_SHOWN)}: ${shown}`]);
  }
  return lines;
}

function describeBatch({ firstOffset, lastOffset, timestamp, reason, bytes }: UnreadableBatch): Line[] {
  return [
    ["timestamp", timeText(timestamp)],
    ["size", `a batch of ${bytes.length} bytes with the offsets ${firstOffset} to ${lastOffset}`],
    ["decodes", `no: unreadable-batch: ${printable(reason)}`],
  ];
}

function decodingOf(message: IncomingMessage, subject: Subject): string {
  if (message.oversizedBytes !== undefined) {
    return "no: too-large";
  }
  const decoded = decodeMessage(message, subject);
  switch (decoded.kind) {
    case "dead":
      return `no: ${decoded.reason}: ${printable(decoded.detail)}`;
    case "tombstone":
      return "yes: a tombstone, which changes nothing";
    case "upsert":
      return decoded.rejected === undefined
        ? "yes"
        : `in part: ${decoded.rejected.reason}: ${printable(decoded.rejected.detail)}`;
    default:
      return "yes";
  }
}

function timeText(timestamp: string): string {
  const ms = Number(timestamp);
  return Math.abs(ms) <= DATE_MS_MAX ? `${timestamp} (${new Date(ms).toISOString()})` : timestamp;
}
