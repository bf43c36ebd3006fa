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
  /** Absent with a store that forgets: then nothing is published. */
  readonly outbox: ChangeOutbox | undefined;
  readonly metrics: Metrics;
  readonly tracing?: Tracing | undefined;
  readonly log: Logger;
}

/** Both directions while they run. As a part of the health report it never makes the server unready. */
export interface Events extends HealthPart {
  /** Ends both directions. The store must still be there. */
  stop(): Promise<void>;
}

/**
 * Starts to take sellers' events in and to publish changes. Returns at once, also where no broker can
 * be reached: reads and Orders need no Kafka, so the server serves, and both directions
 * begin when a broker comes.
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
    log.warn("Sellers' events are taken in, but no changes are published: the embedded store has no outbox");
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
