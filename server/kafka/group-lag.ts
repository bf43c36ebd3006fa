import { setTimeout as wait } from "node:timers/promises";
import type { Admin, Kafka } from "kafkajs";
import type { Metrics } from "../ops/metrics.ts";

/** Interval between two polls of the offsets. Each takes two requests per topic. */
const POLL_INTERVAL_MS = 5_000;

interface GroupLagOptions {
  readonly kafka: Kafka;
  readonly group: string;
  readonly topics: readonly string[];
  readonly metrics: Metrics;
  readonly pollIntervalMs?: number;
}

/**
 * Polls the brokers for the number of messages that the whole group has not acknowledged. A consumer's own figure stops
 * changing when the consumer stops, which is when the figure matters.
 */
export class GroupLag {
  readonly #options: GroupLagOptions;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  #messages: number | undefined;

  constructor(options: GroupLagOptions) {
    this.#options = options;
    this.#running = this.#watch();
  }

  /** Sum over all partitions; `undefined` while the brokers cannot be reached. */
  get messages(): number | undefined {
    return this.#messages;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #watch(): Promise<void> {
    const { signal } = this.#stopping;
    const intervalMs = this.#options.pollIntervalMs ?? POLL_INTERVAL_MS;
    while (!signal.aborted) {
      const admin = this.#options.kafka.admin({ retry: { retries: 0 } });
      try {
        await admin.connect();
        while (!signal.aborted) {
          this.#messages = await this.#poll(admin);
          await wait(intervalMs, undefined, { signal });
        }
      } catch {
        // The ingestor and the publisher report an outage. Here the figure is unknown.
        this.#messages = undefined;
        this.#options.metrics.ingestLagMessages.reset();
      } finally {
        await admin.disconnect().catch(() => {});
      }
      await wait(intervalMs, undefined, { signal }).catch(() => {});
    }
  }

  async #poll(admin: Admin): Promise<number> {
    const { group, topics, metrics } = this.#options;
    const committed = await admin.fetchOffsets({ groupId: group, topics: [...topics] });
    let sum = 0;
    for (const { topic, partitions } of committed) {
      const ends = await admin.fetchTopicOffsets(topic);
      for (const { partition, high, low } of ends) {
        const offset = partitions.find((each) => each.partition === partition)?.offset ?? "-1";
        // -1: nothing is committed yet, and the group starts at the oldest message.
        const next = Math.max(Number(offset), Number(low));
        const behind = Math.max(0, Number(high) - next);
        metrics.ingestLagMessages.set({ topic, partition: String(partition) }, behind);
        sum += behind;
      }
    }
    return sum;
  }
}
