import { Kafka, type LogEntry, logLevel, type SASLOptions } from "kafkajs";
import type { Logger } from "pino";
import { REQUEST_MS_MAX } from "./connections.ts";
import { fixRequestQueue } from "./request-queue.ts";

/** A client of the brokers. Other folders only pass it on. */
export type KafkaClient = Kafka;

/** Timeout for connecting to a broker. */
const CONNECT_MS_MAX = 2_000;
/**
 * kafkajs's retries of one request: about three seconds in all. A longer failure is an outage; the caller then starts
 * over with a new client, which shares no connections with the old one.
 */
const RETRY = { initialRetryTime: 100, maxRetryTime: 1_000, retries: 6 };

/** The brokers, the names of topics and group, and the credentials. */
export interface KafkaSettings {
  /** `host:port`, at least one. */
  readonly brokers: readonly string[];
  readonly group: string;
  readonly productTopic: string;
  readonly collectionTopic: string;
  readonly inventoryTopic: string;
  readonly deadLetterTopic: string;
  /** Creates missing topics, with this number of partitions; -1 for the broker's default. */
  readonly createTopics: boolean;
  readonly topicPartitions: number;
  /** How long a dead letter that the brokers refuse is retried, and an event that fails with an internal error. */
  readonly deadLetterWaitMs: number;
  readonly ssl: boolean;
  readonly sasl: SaslSettings | undefined;
}

export interface SaslSettings {
  readonly mechanism: SaslMechanism;
  readonly username: string;
  readonly password: string;
}

export const SASL_MECHANISMS = ["plain", "scram-sha-256", "scram-sha-512"] as const;
export type SaslMechanism = (typeof SASL_MECHANISMS)[number];

/** Creates a client that connects on first use and logs to `log`. */
export function createKafka(settings: KafkaSettings, name: string, log: Logger): KafkaClient {
  fixRequestQueue();
  return new Kafka({
    clientId: `inventory-${name}`,
    brokers: [...settings.brokers],
    connectionTimeout: CONNECT_MS_MAX,
    requestTimeout: REQUEST_MS_MAX,
    retry: RETRY,
    ssl: settings.ssl,
    ...(settings.sasl && { sasl: saslOptions(settings.sasl) }),
    logLevel: logLevel.INFO,
    logCreator: () => (entry) => forwardLog(log, entry),
  });
}

function saslOptions({ mechanism, username, password }: SaslSettings): SASLOptions {
  switch (mechanism) {
    case "plain":
      return { mechanism, username, password };
    case "scram-sha-256":
      return { mechanism, username, password };
    case "scram-sha-512":
      return { mechanism, username, password };
  }
}

/**
 * kafkajs logs every failed attempt as an error. This service logs an outage once, when it begins, so the library's
 * own messages are logged at debug level.
 */
function forwardLog(
  log: Logger,
  { level, namespace, log: { message, timestamp: _, logger: __, ...fields } }: LogEntry,
): void {
  const child = { kafkajs: namespace, ...fields };
  if (level === logLevel.ERROR || level === logLevel.WARN) {
    log.debug(child, message);
  } else {
    log.trace(child, message);
  }
}
