/**
 * One consumer of a Kafka client under comparison, as a process: `consumer.js CLIENT PACKAGE BROKERS GROUP TOPIC,TOPIC`.
 * PACKAGE is the folder in which the client is installed. Prints a JSON line for each message whose value begins with
 * `tag:`, for each error, on SIGUSR2 when the figures are reset, and on SIGTERM the figures. A message `tag:slow` is
 * never finished. JavaScript, because a native client may need an older Node.js.
 */
import { monitorEventLoopDelay } from "node:perf_hooks";
import { pathToFileURL } from "node:url";

const [client, folder, brokerList, groupId, topicList] = process.argv.slice(2);
const brokers = brokerList.split(",");
const topics = topicList.split(",");
const TEXT_CHARACTERS_MAX = 300;
const FETCH_BYTES_MAX = 8 * 1024 * 1024;
const delay = monitorEventLoopDelay({ resolution: 2 });
let messages = 0;
let headersOfLast = 0;

const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const printError = (error) => {
  const parts = [
    error?.message,
    ...(error?.errors ?? []).map(({ message }) => message),
    error?.cause?.message,
  ];
  print({ kind: "error", text: parts.filter(Boolean).join("; ").slice(0, TEXT_CHARACTERS_MAX) });
};

process.on("SIGUSR2", () => {
  delay.reset();
  messages = 0;
  print({ kind: "reset" });
});
process.on("SIGTERM", () => {
  const { maxRSS } = process.resourceUsage();
  print({
    kind: "figures",
    messages,
    headersOfLast,
    delayMs: Math.round(delay.max / 1e6),
    rssMegabytes: Math.round(maxRSS / 1e3),
  });
  process.exit(0);
});

/** Counts the values of all headers, in each client's form of them. */
function countHeaders(headers) {
  if (headers === undefined || headers === null) return 0;
  if (Array.isArray(headers)) return headers.length;
  return Object.values(headers).reduce((sum, value) => sum + (Array.isArray(value) ? value.length : 1), 0);
}

async function onMessage(value, headers) {
  messages += 1;
  const text = value !== null && value !== undefined && value.length < 40 ? value.toString() : "";
  if (!text.startsWith("tag:")) {
    headersOfLast = countHeaders(headers);
    return;
  }
  print({ kind: "tag", tag: text.slice("tag:".length), at: Date.now() });
  if (text === "tag:slow") await new Promise(() => {});
}

async function load() {
  const module = await import(pathToFileURL(folder).href);
  return module.default ?? module;
}

async function runKafkajs() {
  const { Kafka, logLevel } = await load();
  const kafka = new Kafka({ brokers, logLevel: logLevel.NOTHING });
  const consumer = kafka.consumer({
    groupId,
    sessionTimeout: 6_000,
    heartbeatInterval: 1_000,
    maxWaitTimeInMs: 500,
    metadataMaxAge: 5_000,
    allowAutoTopicCreation: false,
  });
  consumer.on(consumer.events.CRASH, ({ payload }) => printError(payload.error));
  await consumer.connect();
  await consumer.subscribe({ topics, fromBeginning: true });
  await consumer.run({
    partitionsConsumedConcurrently: 4,
    eachMessage: ({ message }) => onMessage(message.value, message.headers),
  });
}

async function runConfluent() {
  const { KafkaJS } = await load();
  const ignore = () => {};
  const logger = {
    info: ignore,
    debug: ignore,
    warn: ignore,
    setLogLevel: ignore,
    error: (text) => printError({ message: text }),
  };
  const kafka = new KafkaJS.Kafka({ kafkaJS: { brokers, logger: { ...logger, namespace: () => logger } } });
  const consumer = kafka.consumer({
    kafkaJS: {
      groupId,
      fromBeginning: true,
      sessionTimeout: 6_000,
      heartbeatInterval: 1_000,
      maxWaitTimeInMs: 500,
      metadataMaxAge: 5_000,
      allowAutoTopicCreation: false,
    },
    "topic.metadata.refresh.interval.ms": 5_000,
    "max.partition.fetch.bytes": FETCH_BYTES_MAX,
  });
  await consumer.connect();
  await consumer.subscribe({ topics });
  await consumer.run({
    partitionsConsumedConcurrently: 4,
    eachMessage: ({ message }) => onMessage(message.value, message.headers),
  });
}

async function runPlatformatic() {
  const { Consumer, FetchIsolationLevels } = await import(pathToFileURL(folder).href);
  const consumer = new Consumer({
    clientId: "compare",
    groupId,
    bootstrapBrokers: brokers,
    sessionTimeout: 6_000,
    heartbeatInterval: 1_000,
    rebalanceTimeout: 10_000,
    metadataMaxAge: 5_000,
  });
  const stream = await consumer.consume({
    topics,
    mode: "committed",
    fallbackMode: "earliest",
    autocommit: true,
    isolationLevel: FetchIsolationLevels.READ_COMMITTED,
    maxWaitTime: 500,
    maxBytes: FETCH_BYTES_MAX,
  });
  stream.on("data", (message) => void onMessage(message.value, message.headerEntries));
  stream.on("error", printError);
  stream.on("close", () => printError({ message: "the stream has ended" }));
}

delay.enable();
const run = { kafkajs: runKafkajs, confluent: runConfluent, platformatic: runPlatformatic }[client];
await run().catch(printError);
