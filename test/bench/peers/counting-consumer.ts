import kafkajs from "kafkajs";
import { fixRequestQueue } from "../../../server/kafka/kafkajs/request-queue.ts";

fixRequestQueue();

// A kafkajs consumer of TOPIC that only counts. Prints its rate, from its first batch until all EVENTS.

const { TOPIC = "", EVENTS, KAFKA_BROKERS = "" } = process.env;
const kafka = new kafkajs.Kafka({ brokers: KAFKA_BROKERS.split(","), logLevel: kafkajs.logLevel.NOTHING });
const consumer = kafka.consumer({ groupId: `counting-${process.pid}` });
let first: { readonly at: number; readonly counted: number } | undefined;
let counted = 0;

await consumer.connect();
await consumer.subscribe({ topics: [TOPIC], fromBeginning: true });
await consumer.run({
  eachBatch: async ({ batch }) => {
    counted += batch.messages.length;
    first ??= { at: performance.now(), counted };
    if (counted >= Number(EVENTS)) {
      const seconds = (performance.now() - first.at) / 1_000;
      process.stdout.write(`events/s: ${(counted - first.counted) / seconds}\n`);
    }
  },
});
