import type { Cluster } from "../../../server/kafka/kafkajs/cluster.ts";
import { until } from "../../support/until.ts";
import { DEAD_LETTERS, type Platform, TOPICS, untilConsumed } from "../platform.ts";
import type { Letters } from "./letters.ts";
import type { Sellers } from "./sellers.ts";

const PARTITIONS_MAX = 8;
/** Until everything that was sent is processed, or a topic is back. */
export const DRAIN_MS_MAX = 120_000;

/** Faults of the broker and of its topics. Each resolves when the state of before is restored. */
export class Faults {
  readonly #counts = new Map<string, number>();
  readonly #platform: Platform;
  readonly #cluster: Cluster;
  readonly #sellers: Sellers;
  readonly #letters: Letters;

  constructor(platform: Platform, cluster: Cluster, sellers: Sellers, letters: Letters) {
    this.#platform = platform;
    this.#cluster = cluster;
    this.#sellers = sellers;
    this.#letters = letters;
  }

  all(): (() => Promise<void>)[] {
    const topics = Object.keys(TOPICS).map((topic) => () => this.#recreate(topic));
    return [...topics, () => this.#restartBroker(), () => this.#restartBroker(), () => this.#addPartition()];
  }

  counts(): [string, number][] {
    return [...this.#counts].sort();
  }

  #count(name: string): void {
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
  }

  async #restartBroker(): Promise<void> {
    await this.#platform.broker.restart();
    this.#count("broker killed and restarted");
  }

  async #addPartition(): Promise<void> {
    const partitions = await this.#sellers.paused(() => this.#cluster.partitionsOf("product"));
    if (partitions.length < PARTITIONS_MAX) {
      await this.#admin((admin) =>
        admin.createPartitions({ topicPartitions: [{ topic: "product", count: partitions.length + 1 }] }),
      );
      this.#count("partition added");
    }
  }

  /** Deletes a topic when all that is in it is processed. The service creates it again. */
  async #recreate(topic: string): Promise<void> {
    await this.#sellers.paused(async () => {
      await untilConsumed(this.#platform.kafka, DRAIN_MS_MAX);
      if (topic === DEAD_LETTERS) {
        await this.#letters.collect();
        this.#letters.forgetPositions();
      }
      const before = await this.#idOf(topic);
      await this.#admin((admin) => admin.deleteTopics({ topics: [topic] }));
      await until(
        async () => {
          const id = await this.#idOf(topic);
          return id !== undefined && id !== before;
        },
        `topic ${topic} is created again`,
        DRAIN_MS_MAX,
      );
    });
    this.#count(`topic ${topic} deleted and created again`);
  }

  async #idOf(topic: string): Promise<string | undefined> {
    const [described] = await this.#cluster.describeTopics([topic]);
    return described?.errorCode === 0 ? described.id : undefined;
  }

  async #admin(action: (admin: ReturnType<Platform["kafka"]["admin"]>) => Promise<unknown>): Promise<void> {
    const admin = this.#platform.kafka.admin();
    await admin.connect();
    try {
      await action(admin);
    } finally {
      await admin.disconnect();
    }
  }
}
