/**
 * Compares Kafka clients by the inputs that the tests of server/kafka/ use, against a real broker:
 * `node test/bench/kafka-clients/compare.ts CLIENT MAIN-FILE [NODE]`, where CLIENT is kafkajs, confluent or platformatic,
 * MAIN-FILE the main module of its package, installed anywhere, and NODE another Node.js to run it with. Prints one JSON
 * line for each input.
 */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { setTimeout as wait } from "node:timers/promises";
import kafkajs from "kafkajs";
import { pino } from "pino";
import { readConfig } from "../../../server/config.ts";
import { createKafka } from "../../../server/kafka/kafkajs/client.ts";
import { Cluster } from "../../../server/kafka/kafkajs/cluster.ts";
import { encodeRawBatch, type RawHeader, type RawRecord, record } from "../../kafka/raw-producer.ts";
import { startKafka } from "../../support/kafka-broker.ts";
import { until } from "../../support/until.ts";

const CONSUMER = new URL("consumer.js", import.meta.url).pathname;
const MEBIBYTE = 1024 * 1024;
/** How long a message is waited for. A client that takes longer counts as stopped. */
const WAIT_MS_MAX = 60_000;
const START_MS_MAX = 60_000;
/** Longer than the clients' interval of automatic commits, and than their refreshed metadata. */
const SETTLE_MS = 6_000;

interface Line {
  readonly kind: "tag" | "error" | "reset" | "figures";
  readonly tag?: string;
  readonly at?: number;
  readonly text?: string;
}

const bytes = (text: string): Buffer => Buffer.from(text);
const many = <T>(count: number, make: (index: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => make(i));
const plain = (value: Buffer, headers: readonly RawHeader[] = []): RawRecord => record(value, { headers });
const tagged = (tag: string): RawRecord => plain(bytes(`tag:${tag}`));

/** Batches of one partition, by name. */
const HOSTILE: Readonly<Record<string, () => Buffer>> = {
  "60,000 headers with different names": () =>
    encodeRawBatch(
      [
        plain(
          bytes("{}"),
          many(60_000, (i) => [bytes(`h${i}`), bytes("v")]),
        ),
      ],
      "none",
    ),
  "150,000 headers with the same name": () =>
    encodeRawBatch(
      [
        plain(
          bytes("{}"),
          many(150_000, () => [bytes("h"), bytes("v")]),
        ),
      ],
      "none",
    ),
  "__proto__, constructor and toString as headers, each twice": () => {
    const names = ["__proto__", "constructor", "toString"];
    const headers = names.flatMap((name): RawHeader[] => many(2, (i) => [bytes(name), bytes(`${i}`)]));
    return encodeRawBatch([plain(bytes("{}"), headers)], "none");
  },
  "a header without value, one without name, one that is not UTF-8": () =>
    encodeRawBatch(
      [
        plain(bytes("{}"), [
          [bytes("n"), null],
          [bytes(""), null],
          [Buffer.from([0xff]), null],
        ]),
      ],
      "none",
    ),
  "a key of 1 MB that is not UTF-8": () =>
    encodeRawBatch([record(bytes("{}"), { headers: [], key: Buffer.alloc(1_000_000, 0xff) })], "none"),
  "150,000 records in one zstd batch": () =>
    encodeRawBatch(
      many(150_000, () => plain(Buffer.alloc(0))),
      "zstd",
    ),
  "a zstd batch of 80 MB": () =>
    encodeRawBatch(
      many(80, () => plain(Buffer.alloc(MEBIBYTE))),
      "zstd",
    ),
  "snappy of 1 MB": () => encodeRawBatch([plain(Buffer.alloc(900_000, "y"))], "snappy"),
  "lz4 of 1 MB": () => encodeRawBatch([plain(Buffer.alloc(900_000, "y"))], "lz4"),
};

const [client, mainFile, node = process.execPath] = process.argv.slice(2);
if (client === undefined || mainFile === undefined) {
  throw new Error("usage: compare.ts kafkajs|confluent|platformatic MAIN-FILE [NODE]");
}
await using broker = await startKafka({ own: true });
const brokers = broker.brokers.join();
const { kafka: settings } = readConfig({ KAFKA_BROKERS: brokers });
if (settings === undefined) {
  throw new Error("No brokers");
}
const cluster = new Cluster(createKafka(settings, "compare", pino({ level: "silent" })));
const other = new kafkajs.Kafka({ brokers: broker.brokers, logLevel: kafkajs.logLevel.NOTHING });
const admin = other.admin();
await admin.connect();
let topics = 0;

async function newTopic(partitions: number, name = `topic-${++topics}`): Promise<string> {
  await broker.createTopic(name, partitions);
  await cluster.describeTopics([name]);
  return name;
}

/** A broker under load may not lead a new partition for a moment. */
async function put(topic: string, partition: number, batch: Buffer): Promise<void> {
  await until(
    () => cluster.produce({ topic, partition, batch }).then(() => true),
    `${topic} is written`,
    START_MS_MAX,
  );
}

const putTags = (topic: string, partition: number, ...tags: string[]) =>
  put(topic, partition, encodeRawBatch(tags.map(tagged), "none"));

class Consumer {
  readonly #process;
  readonly #lines: Line[] = [];

  constructor(topics: readonly string[]) {
    const args = [CONSUMER, client ?? "", mainFile ?? "", brokers, `group-${topics[0]}`, topics.join()];
    this.#process = spawn(node, args, { stdio: ["ignore", "pipe", "ignore"] });
    createInterface({ input: this.#process.stdout }).on("line", (line) =>
      this.#lines.push(JSON.parse(line) as Line),
    );
  }

  /** Whether a line comes within a time. */
  async has(isWanted: (line: Line) => boolean, waitMs = WAIT_MS_MAX): Promise<boolean> {
    return until(() => this.#lines.some(isWanted), "the line", waitMs).catch(() => false);
  }

  hasTag(tag: string): Promise<boolean> {
    return this.has((line) => line.tag === tag);
  }

  /** ms after `since` at which a tagged message was delivered; `undefined` if it was not. */
  after(tag: string, since: number): number | undefined {
    const at = this.#lines.find((line) => line.tag === tag)?.at;
    return at === undefined ? undefined : at - since;
  }

  async reset(): Promise<void> {
    this.#process.kill("SIGUSR2");
    await this.has(({ kind }) => kind === "reset");
  }

  /** Ends the process. Returns its figures, absent if its event loop does not turn, and its errors. */
  async end(): Promise<object> {
    this.#process.kill("SIGTERM");
    await this.has(({ kind }) => kind === "figures", SETTLE_MS);
    this.#process.kill("SIGKILL");
    const errors = new Set(this.#lines.flatMap(({ text }) => text ?? []));
    return { ...this.#lines.find(({ kind }) => kind === "figures"), errors: [...errors] };
  }
}

async function measure(name: string, measureOne: () => Promise<object>): Promise<void> {
  const result = await measureOne().catch((error: unknown) => ({ failed: String(error) }));
  process.stdout.write(`${JSON.stringify({ client, name, ...result })}\n`);
}

/** A hostile batch in one partition, with good messages after it and in another partition. */
async function measureHostile(batch: Buffer): Promise<object> {
  const topic = await newTopic(2);
  await putTags(topic, 0, "first");
  await putTags(topic, 1, "first beside");
  const consumer = new Consumer([topic]);
  await consumer.hasTag("first");
  await consumer.hasTag("first beside");
  await consumer.reset();
  const at = Date.now();
  await put(topic, 0, batch);
  await putTags(topic, 0, "after");
  await putTags(topic, 1, "beside");
  await consumer.hasTag("after");
  await consumer.has(({ tag }) => tag === "beside", SETTLE_MS);
  const end = await consumer.end();
  return { afterMs: consumer.after("after", at), besideMs: consumer.after("beside", at), ...end };
}

async function measureAborted(): Promise<object> {
  const topic = await newTopic(1);
  const consumer = new Consumer([topic]);
  const producer = other.producer({ transactionalId: topic, maxInFlightRequests: 1, idempotent: true });
  await producer.connect();
  for (const end of ["abort", "commit"] as const) {
    const transaction = await producer.transaction();
    await transaction.send({ topic, messages: [{ value: `tag:${end}` }] });
    await transaction[end]();
  }
  await producer.disconnect();
  await consumer.hasTag("commit");
  await wait(SETTLE_MS);
  const [committed] = await cluster.committedOffsets(`group-${topic}`, [{ topic, partition: 0 }]);
  const [range] = await cluster.ranges([{ topic, partition: 0 }]);
  const offset = `${committed?.offset} of ${range?.latest}`;
  return { ...(await consumer.end()), aborted: consumer.after("abort", 0) !== undefined, offset };
}

async function measureMissing(): Promise<object> {
  const topic = await newTopic(1);
  await putTags(topic, 0, "existing");
  const consumer = new Consumer([topic, `${topic}-new`]);
  const started = Date.now();
  await consumer.has(({ tag }) => tag === "existing", SETTLE_MS * 3);
  const existingMs = consumer.after("existing", started);
  await newTopic(1, `${topic}-new`);
  await putTags(`${topic}-new`, 0, "new");
  const created = Date.now();
  await consumer.hasTag("new");
  return { existingMs, newMs: consumer.after("new", created), ...(await consumer.end()) };
}

async function measureAdded(): Promise<object> {
  const topic = await newTopic(1);
  await putTags(topic, 0, "first");
  const consumer = new Consumer([topic]);
  await consumer.hasTag("first");
  await admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] });
  await until(
    async () => (await cluster.describeTopics([topic]))[0]?.partitions.length === 3,
    "partitions are added",
  );
  const at = Date.now();
  await putTags(topic, 2, "added");
  await consumer.hasTag("added");
  return { addedMs: consumer.after("added", at), ...(await consumer.end()) };
}

async function measureRecreated(): Promise<object> {
  const topic = await newTopic(1);
  await putTags(topic, 0, "first", "second", "third");
  const consumer = new Consumer([topic]);
  await consumer.hasTag("third");
  await wait(SETTLE_MS);
  await admin.deleteTopics({ topics: [topic] });
  await wait(SETTLE_MS / 2);
  await newTopic(1, topic);
  const at = Date.now();
  await putTags(topic, 0, "again");
  await consumer.hasTag("again");
  return { againMs: consumer.after("again", at), ...(await consumer.end()) };
}

async function measureSlow(): Promise<object> {
  const topic = await newTopic(2);
  await putTags(topic, 0, "slow");
  const consumer = new Consumer([topic]);
  await consumer.hasTag("slow");
  const at = Date.now();
  await putTags(topic, 1, "beside");
  await consumer.has(({ tag }) => tag === "beside", SETTLE_MS * 3);
  return { besideMs: consumer.after("beside", at), ...(await consumer.end()) };
}

for (const [name, batch] of Object.entries(HOSTILE)) {
  await measure(name, () => measureHostile(batch()));
}
await measure("an aborted transaction and a committed one", measureAborted);
await measure("one of two topics is missing, and is created", measureMissing);
await measure("partitions are added", measureAdded);
await measure("a topic is deleted and created again", measureRecreated);
await measure("a handler that never ends", measureSlow);
await admin.disconnect();
await cluster.close();
