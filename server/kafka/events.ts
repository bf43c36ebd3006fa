import { randomUUID } from "node:crypto";
import type { Logger } from "pino";
import type { ChangeOutbox } from "../inventory/outbox.ts";
import type { InventoryStore } from "../inventory/store.ts";
import type { HealthPart } from "../ops/health.ts";
import type { Metrics } from "../ops/metrics.ts";
import type { Tracing } from "../ops/tracing.ts";
import { createKafka, type KafkaSettings } from "./client.ts";
import { GroupLag } from "./group-lag.ts";
import { Ingestor } from "./ingestor.ts";
import { OrderedProducer } from "./ordered-producer.ts";
import { Publisher } from "./publisher.ts";

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
  const kafka = createKafka(settings, "events", log);
  const deadLetters = new OrderedProducer(kafka);
  const ingestor = new Ingestor({ kafka, settings, store, deadLetters, metrics, tracing, log });
  const groupLag = new GroupLag({
    kafka,
    group: settings.group,
    topics: [settings.productTopic, settings.collectionTopic],
    metrics,
  });
  const publisher =
    outbox &&
    new Publisher({
      outbox,
      producer: new OrderedProducer(kafka),
      topic: settings.inventoryTopic,
      owner: randomUUID(),
      metrics,
      tracing,
      log,
    });
  if (publisher === undefined) {
    log.warn("Sellers' events are ingested, but no changes are published: the embedded store has no outbox");
  }
  metrics.setSource({ ingestLagSeconds: () => ingestor.lagSeconds() });
  return {
    name: "kafka",
    degraded: () => [...ingestor.troubles, ...(publisher?.troubles ?? [])],
    details: () => ({
      ingest: { lagMessages: groupLag.messages ?? null, lagSeconds: ingestor.lagSeconds() },
      publish: publisher
        ? { lagMessages: publisher.backlog?.messages ?? null, lagSeconds: publisher.backlog?.seconds ?? null }
        : null,
    }),
    stop: async () => {
      await Promise.all([ingestor.stop(), groupLag.stop(), publisher?.stop()]);
      await deadLetters.close();
    },
  };
}
