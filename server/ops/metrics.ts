import { Counter, Gauge, Registry } from "prom-client";

/**
 * Outcomes of sellers' messages that are not dead letters as a whole.
 *
 * - `applied`: the event changed the product or the collection.
 * - `stale`: the event changed nothing.
 * - `partial`: the stock or the details were processed, and the rest of the event is a dead letter.
 * - `tombstone`: the message has no value.
 */
export const EVENT_OUTCOMES = ["applied", "stale", "partial", "tombstone"] as const;
export type EventOutcome = (typeof EVENT_OUTCOMES)[number];

/** The metrics of events and publishing. Each app has its own registry. */
export interface Metrics {
  readonly registry: Registry;
  /** Sellers' events that the store has processed, by topic and outcome. */
  readonly events: Counter<"topic" | "outcome">;
  readonly deadLetters: Counter<"topic" | "reason">;
  /** Dead letters without their value, because the topic did not accept the whole, and those that were only logged. */
  readonly deadLettersShortened: Counter<"topic" | "reason">;
  readonly deadLettersLogged: Counter<"topic" | "reason">;
  /** 1 for a topic that this server needs and that does not exist or cannot be used. */
  readonly topicMissing: Gauge<"topic">;
  /** Messages of a partition that the group has not committed, and the age of the oldest. */
  readonly ingestLagMessages: Gauge<"topic" | "partition">;
  readonly ingestLagSeconds: Gauge;
  readonly ingestUp: Gauge<"group">;
  readonly ingestWaitingPartitions: Gauge<"group">;
  readonly consumersReplaced: Counter;
  readonly changesPublished: Counter;
  readonly publishFailures: Counter;
  readonly publishLagMessages: Gauge<"bucket">;
  readonly publishLagSeconds: Gauge;
  readonly publishLeases: Gauge;
  readonly snapshots: Counter;
  readonly snapshotProducts: Counter;
  /** Sets the source of the figures that are computed at the time of the scrape. To be called once, if Kafka is used. */
  setSource(source: MetricsSource): void;
}

/** Figures that are computed at the time of the scrape. */
export interface MetricsSource {
  readonly group: string;
  ingestLagSeconds(): number;
  ingestUp(): number;
  ingestWaitingPartitions(): number;
}

export function createMetrics(): Metrics {
  const registry = new Registry();
  const registers = [registry];
  let source: MetricsSource | undefined;
  return {
    setSource: (newSource) => {
      source = newSource;
    },
    registry,
    events: new Counter({
      name: "inventory_events_total",
      help: "Events of sellers that the store has processed; a stale one was superseded by a newer one",
      labelNames: ["topic", "outcome"],
      registers,
    }),
    deadLetters: new Counter({
      name: "inventory_dead_letters_total",
      help: "Messages sent to the dead-letter topic, by reason",
      labelNames: ["topic", "reason"],
      registers,
    }),
    deadLettersShortened: new Counter({
      name: "inventory_dead_letters_shortened_total",
      help: "Dead letters sent without their value, because the dead-letter topic did not accept the whole",
      labelNames: ["topic", "reason"],
      registers,
    }),
    deadLettersLogged: new Counter({
      name: "inventory_dead_letters_logged_total",
      help: "Dead letters that were only logged, because the dead-letter topic refused them for too long",
      labelNames: ["topic", "reason"],
      registers,
    }),
    topicMissing: new Gauge({
      name: "inventory_topic_missing",
      help: "1 for a Kafka topic that this server needs and that does not exist or cannot be used, 0 for any other",
      labelNames: ["topic"],
      registers,
    }),
    ingestLagMessages: new Gauge({
      name: "inventory_ingest_lag_messages",
      help: "Messages of a partition that the consumer group has not committed; the same on every server",
      labelNames: ["topic", "partition"],
      registers,
    }),
    ingestLagSeconds: new Gauge({
      name: "inventory_ingest_lag_seconds",
      help: "Age of the oldest message that the consumer group has not committed; 0 if there is none; the same on every server",
      registers,
      collect() {
        this.set(source?.ingestLagSeconds() ?? 0);
      },
    }),
    ingestUp: new Gauge({
      name: "inventory_ingest_up",
      help: "1 while this server is a member of the consumer group, 0 while it is not",
      labelNames: ["group"],
      registers,
      collect() {
        if (source !== undefined) {
          this.set({ group: source.group }, source.ingestUp());
        }
      },
    }),
    ingestWaitingPartitions: new Gauge({
      name: "inventory_ingest_waiting_partitions",
      help: "Partitions of this server whose next message can be neither applied nor dead-lettered now",
      labelNames: ["group"],
      registers,
      collect() {
        if (source !== undefined) {
          this.set({ group: source.group }, source.ingestWaitingPartitions());
        }
      },
    }),
    consumersReplaced: new Counter({
      name: "inventory_consumers_replaced_total",
      help: "Kafka consumers that crashed or stalled and were replaced",
      registers,
    }),
    changesPublished: new Counter({
      name: "inventory_changes_published_total",
      help: "Changes that Kafka acknowledged and that the cursor has passed",
      registers,
    }),
    publishFailures: new Counter({
      name: "inventory_publish_failures_total",
      help: "Publishing rounds that failed and are retried",
      registers,
    }),
    publishLagMessages: new Gauge({
      name: "inventory_publish_lag_messages",
      help: "Unpublished changes of a bucket; the same on every server",
      labelNames: ["bucket"],
      registers,
    }),
    publishLagSeconds: new Gauge({
      name: "inventory_publish_lag_seconds",
      help: "Age of the oldest unpublished change; the same on every server",
      registers,
    }),
    publishLeases: new Gauge({
      name: "inventory_publish_leases",
      help: "Buckets whose changes this server publishes",
      registers,
    }),
    snapshots: new Counter({
      name: "inventory_publish_snapshots_total",
      help: "Buckets of which every product's newest state was published, because changes were trimmed before publishing",
      registers,
    }),
    snapshotProducts: new Counter({
      name: "inventory_publish_snapshot_products_total",
      help: "Product states published in snapshots",
      registers,
    }),
  };
}
