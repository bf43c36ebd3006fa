import { Counter, Gauge, Registry } from "prom-client";

/** What the events from sellers came to. */
export const EVENT_OUTCOMES = ["applied", "stale"] as const;
export type EventOutcome = (typeof EVENT_OUTCOMES)[number];

/** Every metric of this server, by name. Each app has a registry of its own. */
export interface Metrics {
  readonly registry: Registry;
  /** Sellers' events that the store has answered for, by topic and outcome. */
  readonly events: Counter<"topic" | "outcome">;
  readonly deadLetters: Counter<"topic" | "reason">;
  /** Messages of a partition that the group has not acknowledged, and the age of the oldest one that this server met. */
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
  /** Tells where to ask for figures that are known only at the moment of asking. */
  setSource(source: MetricsSource): void;
}

/** Figures that grow by themselves. */
export interface MetricsSource {
  ingestLagSeconds(): number;
}

export function createMetrics(): Metrics {
  const registry = new Registry();
  const registers = [registry];
  let source: MetricsSource = { ingestLagSeconds: () => 0 };
  return {
    setSource: (given) => {
      source = given;
    },
    registry,
    events: new Counter({
      name: "inventory_events_total",
      help: "Events of sellers that the store has answered for; stale ones lost against a newer one",
      labelNames: ["topic", "outcome"],
      registers,
    }),
    deadLetters: new Counter({
      name: "inventory_dead_letters_total",
      help: "Messages put into the dead-letter topic, by reason",
      labelNames: ["topic", "reason"],
      registers,
    }),
    ingestLagMessages: new Gauge({
      name: "inventory_ingest_lag_messages",
      help: "Messages of a partition that the consumer group has not acknowledged; the same from every server",
      labelNames: ["topic", "partition"],
      registers,
    }),
    ingestLagSeconds: new Gauge({
      name: "inventory_ingest_lag_seconds",
      help: "Age of the oldest message that this server has met and not acknowledged; 0 where there is none",
      registers,
      collect() {
        this.set(source.ingestLagSeconds());
      },
    }),
    consumersReplaced: new Counter({
      name: "inventory_consumers_replaced_total",
      help: "Kafka consumers that crashed or hung and were replaced",
      registers,
    }),
    changesPublished: new Counter({
      name: "inventory_changes_published_total",
      help: "Changes that Kafka acknowledged and whose place was moved past",
      registers,
    }),
    publishFailures: new Counter({
      name: "inventory_publish_failures_total",
      help: "Rounds of publishing that failed and are done again",
      registers,
    }),
    publishLagMessages: new Gauge({
      name: "inventory_publish_lag_messages",
      help: "Changes of a bucket that are not published; the same from every server",
      labelNames: ["bucket"],
      registers,
    }),
    publishLagSeconds: new Gauge({
      name: "inventory_publish_lag_seconds",
      help: "Age of the oldest change that is not published; the same from every server",
      registers,
    }),
    publishLeases: new Gauge({
      name: "inventory_publish_leases",
      help: "Buckets whose changes this server publishes",
      registers,
    }),
    snapshots: new Counter({
      name: "inventory_publish_snapshots_total",
      help: "Buckets of which every product's newest state was published because changes had fallen out of the backlog",
      registers,
    }),
    snapshotProducts: new Counter({
      name: "inventory_publish_snapshot_products_total",
      help: "Product states published in snapshots",
      registers,
    }),
  };
}
