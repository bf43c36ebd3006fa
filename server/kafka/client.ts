import { Kafka, type LogEntry, logLevel, type SASLOptions } from "kafkajs";
import type { Logger } from "pino";
import { installCodecs } from "./codecs.ts";

/** How long a connection to a broker may take. */
const CONNECT_MS_MAX = 2_000;
/** How long a broker may owe an answer before the connection counts as dead. */
const RESPONSE_MS_MAX = 10_000;
/**
 * kafkajs's own tries of one request: about three seconds in all. What lasts longer is an outage, and
 * whoever asked begins anew with a client that holds nothing of the old connections.
 */
const RETRY = { initialRetryTime: 100, maxRetryTime: 1_000, retries: 6 };

/** Where Kafka is and how the topics are called. */
export interface KafkaSettings {
  /** `host:port`, at least one. */
  readonly brokers: readonly string[];
  readonly group: string;
  readonly productTopic: string;
  readonly collectionTopic: string;
  readonly inventoryTopic: string;
  readonly deadLetterTopic: string;
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

/** A client whose connections are made when they are first needed, and whose log is ours. */
export function createKafka(settings: KafkaSettings, name: string, log: Logger): Kafka {
  installCodecs();
  return new Kafka({
    clientId: `inventory-${name}`,
    brokers: [...settings.brokers],
    connectionTimeout: CONNECT_MS_MAX,
    requestTimeout: RESPONSE_MS_MAX,
    retry: RETRY,
    ssl: settings.ssl,
    ...(settings.sasl && { sasl: saslOptions(settings.sasl) }),
    logLevel: logLevel.INFO,
    logCreator: () => (entry) => tellLog(log, entry),
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
 * kafkajs tells each failed try as an error. We tell an outage once, where it begins, so what the
 * library says of it is for those who look closer.
 */
function tellLog(
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
