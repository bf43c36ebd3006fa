import { Counter, Gauge, Registry } from "prom-client";

/** Outcomes of sellers' events. */
export const EVENT_OUTCOMES = ["applied", "stale"] as const;
export type EventOutcome = (typeof EVENT_OUTCOMES)[number];

/** The metrics of events and publishing. Each app has its own registry. */
export interface Metrics {
  readonly registry: Registry;
  /** Sellers' events that the store has processed, by topic and outcome. */
  readonly events: Counter<"topic" | "outcome">;
  readonly deadLetters: Counter<"topic" | "reason">;
  /** Messages of a partition that the group has not committed, and the age of the oldest that this server has received. */
  readonly ingestLagMessages: Gauge<"topic" | "partition">;
  readonly ingestLagSeconds: Gauge;
  readonly consumersReplaced: Counter;
  readonly changesPublished: Counter;
  readonly publishFailures: Counter;
  readonly publishLagMessages: Gauge<"bucket">;
  readonly publishLagSeconds: Gauge;
  readonly publishLeases: Gauge;
  readonly snapshots: Counter;
  readonly snapshotProducts: Counter;
  /** Sets the source of the figures that are computed at the time of the scrape. */
  setSource(source: MetricsSource): void;
}

/** Figures that are computed at the time of the scrape. */
export interface MetricsSource {
  ingestLagSeconds(): number;
}

export function createMetrics(): Metrics {
  const registry = new Registry();
  const registers = [registry];
  let source: MetricsSource = { ingestLagSeconds: () => 0 };
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
    ingestLagMessages: new Gauge({
      name: "inventory_ingest_lag_messages",
      help: "Messages of a partition that the consumer group has not committed; the same on every server",
      labelNames: ["topic", "partition"],
      registers,
    }),
    ingestLagSeconds: new Gauge({
      name: "inventory_ingest_lag_seconds",
      help: "Age of the oldest message that this server has received and not committed; 0 if there is none",
      registers,
      collect() {
        this.set(source.ingestLagSeconds());
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
