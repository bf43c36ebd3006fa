import { randomUUID } from "node:crypto";
import type { Logger } from "pino";
import type { ChangeOutbox } from "../inventory/outbox.ts";
import type { InventoryStore } from "../inventory/store.ts";
import type { HealthPart } from "../ops/health.ts";
import type { Metrics } from "../ops/metrics.ts";
import type { Tracing } from "../ops/tracing.ts";
import { DeadLetterSender } from "./dead-letters/dead-letter-sender.ts";
import { ALL_DEAD_LETTER_REASONS } from "./dead-letters/dead-letters.ts";
import type { Subject } from "./ingest/decode.ts";
import { EventProcessor } from "./ingest/event-processor.ts";
import { Fetcher } from "./ingest/fetcher.ts";
import { GroupLag } from "./ingest/group-lag.ts";
import { Ingestor } from "./ingest/ingestor.ts";
import { LargeMessageDecoder } from "./ingest/large-messages.ts";
import { LoopBudget } from "./ingest/loop-budget.ts";
import { createTopic } from "./kafkajs/admin.ts";
import { createKafka, type KafkaSettings } from "./kafkajs/client.ts";
import { Cluster } from "./kafkajs/cluster.ts";
import { OrderedProducer } from "./publish/ordered-producer.ts";
import { Publisher } from "./publish/publisher.ts";
import { wantedTopics } from "./topic-config.ts";
import { TopicWatch } from "./topics.ts";

interface EventsOptions {
  readonly settings: KafkaSettings;
  readonly store: InventoryStore;
  /** Absent with the embedded store, which has no outbox: then nothing is published. */
  readonly outbox: ChangeOutbox | undefined;
  readonly metrics: Metrics;
  readonly tracing?: Tracing | undefined;
  readonly log: Logger;
}

/** The running ingestor and publisher. As a part of the health report they never make the server unready. */
export interface Events extends HealthPart {
  /** Stops both. The store must still be open. */
  stop(): Promise<void>;
}

/**
 * Starts to ingest sellers' events and to publish changes. Returns at once, even if no broker is reachable: reads and
 * Orders do not need Kafka, so the server serves, and both start as soon as a broker is available.
 */
export function startEvents({ settings, store, outbox, metrics, tracing, log }: EventsOptions): Events {
  const { group, productTopic, collectionTopic, deadLetterTopic, deadLetterWaitMs } = settings;
  const kafka = createKafka(settings, "events", log);
  // Fetches wait at the brokers, so that other requests need connections of their own.
  const [readCluster, cluster] = [new Cluster(kafka), new Cluster(kafka)];
  const subjects = new Map<string, Subject>([
    [productTopic, "product"],
    [collectionTopic, "collection"],
  ]);
  const topics = [...subjects.keys()];
  for (const topic of topics) {
    // Starting at 0, so that an alert on the increase sees the first dead letter.
    for (const reason of ALL_DEAD_LETTER_REASONS) {
      metrics.deadLetters.inc({ topic, reason }, 0);
      metrics.deadLettersShortened.inc({ topic, reason }, 0);
      metrics.deadLettersLogged.inc({ topic, reason }, 0);
    }
  }
  const watch = new TopicWatch({
    cluster,
    topics: wantedTopics(settings, outbox !== undefined),
    createTopic: (name, config) => createTopic(kafka, name, config),
    metrics,
    log,
  });
  const deadLetters = new DeadLetterSender({
    cluster,
    topic: deadLetterTopic,
    waitMs: deadLetterWaitMs,
    metrics,
    log,
  });
  const [budget, decoder] = [new LoopBudget(), new LargeMessageDecoder()];
  const processor = new EventProcessor({
    store,
    deadLetters,
    decoder,
    budget,
    subjects,
    group,
    faultMs: deadLetterWaitMs,
    metrics,
    tracing,
    log,
  });
  const fetcher = new Fetcher(readCluster);
  const ingestor = new Ingestor({
    kafka,
    cluster: readCluster,
    fetcher,
    watch,
    group,
    topics,
    processor,
    budget,
    metrics,
    log,
  });
  const lag = new GroupLag({ cluster, watch, group, topics, metrics });
  const publisher =
    outbox &&
    new Publisher({
      outbox,
      producer: new OrderedProducer(new Cluster(kafka)),
      topic: settings.inventoryTopic,
      owner: randomUUID(),
      metrics,
      tracing,
      log,
    });
  if (publisher === undefined) {
    log.warn("Sellers' events are ingested, but no changes are published: the embedded store has no outbox");
  }
  metrics.setSource({
    group,
    ingestLagSeconds: () => lag.seconds,
    ingestUp: () => (ingestor.isConsuming ? 1 : 0),
    ingestWaitingPartitions: () => ingestor.waiting,
  });
  return {
    name: "kafka",
    degraded: () => [
      ...watch.troubles,
      ...ingestor.troubles,
      ...deadLetters.troubles,
      ...(publisher?.troubles ?? []),
    ],
    details: () => ({
      ingest: { lagMessages: lag.messages ?? null, lagSeconds: Math.round(lag.seconds * 10) / 10 },
      publish: publisher
        ? { lagMessages: publisher.backlog?.messages ?? null, lagSeconds: publisher.backlog?.seconds ?? null }
        : null,
    }),
    stop: async () => {
      await Promise.all([ingestor.stop(), lag.stop(), watch.stop(), publisher?.stop()]);
      await Promise.all([cluster.close(), readCluster.close(), decoder.close()]);
    },
  };
}
