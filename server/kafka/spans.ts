import type { TraceSpan, Tracing } from "../ops/tracing.ts";
import type { IncomingMessage } from "./ingest/message.ts";
import type { ProducedMessage } from "./publish/ordered-producer.ts";

// Names and attributes of OpenTelemetry's semantic conventions for messaging, version 1.45.

/** A span for applying one event; a child of the sender's span if the message has a `traceparent`. */
export function processSpan(tracing: Tracing, message: IncomingMessage, group: string): TraceSpan {
  const { topic, partition, offset, headers } = message;
  return tracing.startSpan(
    "consumer",
    `process ${topic}`,
    {
      "messaging.system.name": "kafka",
      "messaging.operation.type": "process",
      "messaging.operation.name": "process",
      "messaging.destination.name": topic,
      "messaging.destination.partition.id": String(partition),
      "messaging.kafka.offset": Number(offset),
      "messaging.consumer.group.name": group,
    },
    { traceparent: headers.text("traceparent"), tracestate: headers.text("tracestate") },
  );
}

/** A span for sending a batch of changes. The change stream does not carry the trace contexts of their causes. */
export function sendSpan(tracing: Tracing, topic: string, messages: number): TraceSpan {
  return tracing.startSpan("producer", `send ${topic}`, {
    "messaging.system.name": "kafka",
    "messaging.operation.type": "send",
    "messaging.operation.name": "send",
    "messaging.destination.name": topic,
    "messaging.batch.message_count": messages,
  });
}

export function withHeaders(
  messages: readonly ProducedMessage[],
  headers: Readonly<Record<string, string>>,
): ProducedMessage[] {
  return messages.map((message) => ({ ...message, headers: { ...message.headers, ...headers } }));
}
