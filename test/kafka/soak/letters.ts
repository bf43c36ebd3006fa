import { originOf } from "../../../server/kafka/dead-letters/dead-letters.ts";
import { readRange } from "../../../server/kafka/ingest/read-range.ts";
import type { Cluster } from "../../../server/kafka/kafkajs/cluster.ts";
import { DEAD_LETTERS } from "../platform.ts";
import { numberOf } from "./bad-messages.ts";

interface Letter {
  readonly reason: string;
  readonly isShortened: boolean;
}

/** The dead letters of all topics of this name that there have been. */
export class Letters {
  readonly byNumber = new Map<number, Letter>();
  readonly unexpected: string[] = [];
  batches = 0;
  total = 0;
  readonly #cluster: Cluster;
  readonly #read = new Map<number, bigint>();

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  async collect(): Promise<void> {
    await this.#cluster.describeTopics([DEAD_LETTERS]);
    const partitions = (await this.#cluster.partitionsOf(DEAD_LETTERS)).map((partition) => ({
      topic: DEAD_LETTERS,
      partition,
    }));
    for (const { earliest, latest, ...partition } of await this.#cluster.ranges(partitions)) {
      const from = this.#read.get(partition.partition) ?? earliest;
      for await (const { messages, next } of readRange(this.#cluster, partition, from, latest)) {
        for (const { key, headers } of messages) {
          const origin = originOf(headers);
          const number = numberOf(key);
          this.total += 1;
          if (origin?.reason === "unreadable-batch") {
            this.batches += 1;
          } else if (origin === undefined || number === undefined) {
            this.unexpected.push(`${origin?.reason}: ${origin?.detail}`);
          } else {
            this.byNumber.set(number, { reason: origin.reason, isShortened: origin.isShortened });
          }
        }
        this.#read.set(partition.partition, next);
      }
    }
  }

  /** To be called when the topic is deleted. */
  forgetPositions(): void {
    this.#read.clear();
  }
}
