import type { Admin, Kafka } from "kafkajs";

/** How to create a topic. */
export interface TopicConfig {
  /** -1 for the broker's default. */
  readonly partitions: number;
  /** Entries such as `max.message.bytes`. The rest has the broker's defaults, as the replication factor has. */
  readonly entries: Readonly<Record<string, string>>;
}

/** Creates a topic. Returns without an error if it exists already. */
export async function createTopic(kafka: Kafka, topic: string, config: TopicConfig): Promise<void> {
  await withAdmin(kafka, (admin) =>
    admin.createTopics({
      waitForLeaders: false,
      topics: [
        {
          topic,
          numPartitions: config.partitions,
          replicationFactor: -1,
          configEntries: Object.entries(config.entries).map(([name, value]) => ({ name, value })),
        },
      ],
    }),
  );
}

async function withAdmin<T>(kafka: Kafka, action: (admin: Admin) => Promise<T>): Promise<T> {
  const admin = kafka.admin({ retry: { retries: 0 } });
  try {
    await admin.connect();
    return await action(admin);
  } finally {
    await admin.disconnect().catch(() => {});
  }
}
