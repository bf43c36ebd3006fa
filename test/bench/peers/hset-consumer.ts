import { Redis } from "ioredis";
import kafkajs from "kafkajs";
import { fixRequestQueue } from "../../../server/kafka/kafkajs/request-queue.ts";

fixRequestQueue();

// A kafkajs consumer of TOPIC that keeps each product's event in a hash of Redis: one HSET per event, a batch in one pipeline.
// kafkajs commits the offsets after each batch. Prints its rate, from the end of the WARM_UP_EVENTS until all EVENTS.

const { TOPIC = "", EVENTS, WARM_UP_EVENTS, KAFKA_BROKERS = "", REDIS_URL = "" } = process.env;
const redis = new Redis(REDIS_URL);
const kafka = new kafkajs.Kafka({ brokers: KAFKA_BROKERS.split(","), logLevel: kafkajs.logLevel.NOTHING });
const consumer = kafka.consumer({ groupId: `hset-${process.pid}` });
let first: { readonly at: number; readonly written: number } | undefined;
let written = 0;

await consumer.connect();
await consumer.subscribe({ topics: [TOPIC], fromBeginning: true });
await consumer.run({
  eachBatch: async ({ batch }) => {
    const pipeline = redis.pipeline();
    for (const { key, value } of batch.messages) {
      pipeline.hset(`product:${key}`, "event", value ?? "");
    }
    const failed = (await pipeline.exec())?.find(([error]) => error !== null);
    if (failed !== undefined) {
      throw failed[0];
    }
    written += batch.messages.length;
    if (written >= Number(WARM_UP_EVENTS)) {
      first ??= { at: performance.now(), written };
    }
    if (first !== undefined && written >= Number(EVENTS)) {
      const seconds = (performance.now() - first.at) / 1_000;
      process.stdout.write(`events/s: ${(written - first.written) / seconds}\n`);
    }
  },
});
