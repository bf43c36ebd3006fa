import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Admin, Kafka, logLevel } from "kafkajs";
import { fixRequestQueue } from "../../server/kafka/kafkajs/request-queue.ts";
import { freePort, isFree } from "./free-port.ts";
import {
  findJavaKafka,
  findKafka,
  type JavaKafka,
  kafkaClassArchive,
  kafkaStorageTemplate,
  need,
} from "./programs.ts";
import { type ServerProcess, startServerProcess } from "./server-process.ts";
import { Hopeless, until } from "./until.ts";

/** A number of partitions, or that and the topic's configuration. */
export type Topic =
  | number
  | { readonly partitions: number; readonly config: Readonly<Record<string, string>> };

export interface KafkaOptions {
  /** A free one unless given. */
  readonly port?: number;
  /** Topics to create at the start. */
  readonly topics?: Readonly<Record<string, Topic>>;
  /** Further lines of server.properties. They override the ones set here. */
  readonly extraProperties?: Readonly<Record<string, string>>;
  /** Start a broker even if KAFKA_BROKERS names one: for tests that kill it. */
  readonly own?: boolean;
  /** Yields the processor to other processes, as if the broker had a machine of its own. */
  readonly isNice?: boolean;
  /** The JVM writes its loaded classes into this file when it exits normally, for faster starts. */
  readonly recordClassesInto?: string;
}

/** A Kafka broker for a test. It keeps its port and data over `kill9` and `restart`. */
export interface KafkaBroker extends AsyncDisposable {
  readonly brokers: string[];
  readonly port: number;
  /** Whether KAFKA_BROKERS names it. Then it cannot be killed, restarted or paused, and `stop` deletes the topics created here. */
  readonly external: boolean;
  readonly pid: number;
  /** Kills the process with SIGKILL, like a crash. */
  readonly kill9: () => Promise<void>;
  /** Starts it again with the same port and data. Kills a running process first. */
  readonly restart: () => Promise<void>;
  /** Freezes the process (SIGSTOP). After more than 2 seconds the controller fences it for a moment when it resumes. */
  readonly pause: () => void;
  readonly resume: () => void;
  /** Creates a topic and waits until its partitions have leaders. Does nothing if it exists. */
  readonly createTopic: (name: string, topic?: Topic) => Promise<void>;
  /** Ends the process and removes its data. SIGTERM shuts it down cleanly. May be called again. */
  readonly stop: (signal?: "SIGTERM" | "SIGKILL") => Promise<void>;
}

const startTimeoutMs = 60_000;
const formatTimeoutMs = 30_000;
const requestTimeoutMs = 2_000;
const portAttemptsMax = 5;
const partitionsDefault = 3;
const retriesDefault = 5;

fixRequestQueue();

class PortTaken extends Hopeless {}

/**
 * Starts Apache Kafka (KRaft, one node that is broker and controller) with plain `java`, and resolves when an admin client can
 * describe the cluster. On two cores a start takes about 2 s. A restart after kill -9 takes about 3 s, because the controller
 * refuses the broker's new incarnation until the session of the old one (2 s here, 9 s by default) has expired. Topics are
 * not created automatically. Without `own`, a broker that KAFKA_BROKERS names is used instead.
 */
export async function startKafka(options: KafkaOptions = {}): Promise<KafkaBroker> {
  const found = options.own === true ? findJavaKafka() : findKafka();
  if (found === undefined) throw new Error(`Cannot start Kafka, there is ${need("own-kafka").missing}`);
  const broker = found.kind === "external" ? useKafka(found.brokers) : await startJavaKafka(found, options);
  try {
    for (const [name, topic] of Object.entries(options.topics ?? {})) {
      await broker.createTopic(name, topic);
    }
    return broker;
  } catch (error) {
    await broker.stop();
    throw error;
  }
}

function useKafka(brokers: string[]): KafkaBroker {
  const created: string[] = [];
  const refuse = () => {
    throw new Error(
      `Cannot do this to ${brokers.join(",")}: KAFKA_BROKERS names it, and this test did not start it`,
    );
  };
  const stop = async () => {
    const topics = created.splice(0);
    if (topics.length > 0) await withAdmin(brokers, (admin) => admin.deleteTopics({ topics }));
  };
  return {
    brokers,
    port: Number(brokers[0]?.split(":").at(-1)),
    external: true,
    get pid() {
      return refuse();
    },
    kill9: async () => refuse(),
    restart: async () => refuse(),
    pause: refuse,
    resume: refuse,
    createTopic: async (name, topic = partitionsDefault) => {
      if (await createTopic(brokers, name, topic)) created.push(name);
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

async function startJavaKafka(kafka: JavaKafka, options: KafkaOptions): Promise<KafkaBroker> {
  if (options.port !== undefined && !(await isFree(options.port))) {
    throw new Error(`Cannot start Kafka: port ${options.port} is taken`);
  }
  const dir = await mkdtemp(join(tmpdir(), "inventory-kafka-"));
  const java = javaCommand(kafka, dir, options.recordClassesInto);
  const propertiesFile = join(dir, "server.properties");
  const logFile = join(dir, "kafka.log");
  let formatted = false;

  async function start(port: number, controllerPort: number): Promise<ServerProcess> {
    const properties = {
      ...propertiesOf(port, controllerPort, join(dir, "data")),
      ...options.extraProperties,
    };
    const lines = Object.entries(properties).map(([name, value]) => `${name}=${value}\n`);
    await writeFile(propertiesFile, lines.join(""));
    if (!formatted) {
      await provideStorage(kafka, dir, propertiesFile, options.extraProperties === undefined);
      formatted = true;
    }
    const args = [...java, "kafka.Kafka", propertiesFile];
    const server = await startServerProcess({
      ...(options.isNice
        ? { command: "nice", args: ["-n", "10", kafka.java, ...args] }
        : { command: kafka.java, args }),
      logFile,
      removeOnCrash: dir,
    });
    try {
      await until(() => isServing(server, port), `Kafka serves on port ${port}`, startTimeoutMs);
      return server;
    } catch (error) {
      await server.end();
      if (error instanceof Hopeless) throw error;
      throw new Error(`Kafka does not serve: ${server.describe()}`, { cause: error });
    }
  }

  let port = options.port ?? (await freePort());
  let controllerPort = await freePort();
  let server: ServerProcess;

  /** Retries if another server has taken a port. The broker keeps its own port once clients know it. */
  async function startWithFreePorts(keepPort: boolean): Promise<ServerProcess> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await start(port, controllerPort);
      } catch (error) {
        if (!(error instanceof PortTaken) || attempt === portAttemptsMax) throw error;
        if (!keepPort) port = await freePort();
        // The controller's port may change after formatting: the voters are read from the properties at every start.
        controllerPort = await freePort();
      }
    }
  }

  async function stop(signal: "SIGTERM" | "SIGKILL" = "SIGKILL"): Promise<void> {
    await server.end(signal, startTimeoutMs);
    await rm(dir, { recursive: true, force: true });
  }

  await mkdir(join(dir, "data"));
  await writeFile(join(dir, "log4j2.properties"), log4jProperties);
  try {
    server = await startWithFreePorts(options.port !== undefined);
  } catch (error) {
    await rm(dir, { recursive: true, force: true });
    throw error;
  }
  const brokers = [`127.0.0.1:${port}`];

  return {
    brokers,
    port,
    external: false,
    get pid() {
      return server.pid;
    },
    kill9: () => server.end("SIGKILL"),
    restart: async () => {
      await server.end("SIGKILL");
      server = await startWithFreePorts(true);
    },
    pause: () => server.signal("SIGSTOP"),
    resume: () => server.signal("SIGCONT"),
    createTopic: async (name, topic = partitionsDefault) => {
      await createTopic(brokers, name, topic);
    },
    stop,
    [Symbol.asyncDispose]: () => stop(),
  };
}

function propertiesOf(port: number, controllerPort: number, dataDir: string): Record<string, string> {
  return {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.quorum.voters": `1@127.0.0.1:${controllerPort}`,
    listeners: `PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}`,
    "advertised.listeners": `PLAINTEXT://127.0.0.1:${port}`,
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "log.dirs": dataDir,
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    // So that the group notices soon that a consumer has died; the default is 6 s.
    "group.min.session.timeout.ms": "1000",
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "200",
  };
}

const log4jProperties = `status=error
appender.file.type=Console
appender.file.name=OUT
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d{HH:mm:ss.SSS} %-5p %m (%c{1})%n
rootLogger.level=info
rootLogger.appenderRef.file.ref=OUT
`;

/** For a quick start rather than throughput: serial collector, first compiler only, class archive. */
function javaCommand(kafka: JavaKafka, dir: string, recordClassesInto?: string): string[] {
  const archive = kafkaClassArchive();
  return [
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Xlog:disable",
    "-Djava.awt.headless=true",
    `-Dlog4j2.configurationFile=${join(dir, "log4j2.properties")}`,
    ...(recordClassesInto === undefined ? [] : [`-XX:ArchiveClassesAtExit=${recordClassesInto}`]),
    ...(recordClassesInto === undefined && archive !== undefined ? [`-XX:SharedArchiveFile=${archive}`] : []),
    "-cp",
    kafka.classpath,
  ];
}

/** Formats the storage, or copies one that was formatted before, which saves the start of a JVM. */
async function provideStorage(
  kafka: JavaKafka,
  dir: string,
  propertiesFile: string,
  alike: boolean,
): Promise<void> {
  const [data, template] = [join(dir, "data"), kafkaStorageTemplate()];
  if (alike && existsSync(template)) {
    await cp(template, data, { recursive: true });
    return;
  }
  await formatStorage(kafka, dir, propertiesFile);
  if (!alike) return;
  const unfinished = `${template}.${process.pid}`;
  // Another process may have been faster, or the cache may be read-only: then this copy is dropped.
  await cp(data, unfinished, { recursive: true })
    .then(() => rename(unfinished, template))
    .catch(() => rm(unfinished, { recursive: true, force: true }));
}

async function formatStorage(kafka: JavaKafka, dir: string, propertiesFile: string): Promise<void> {
  const clusterId = `I${crypto.randomUUID().replaceAll("-", "").slice(0, 20)}A`;
  const args = ["kafka.tools.StorageTool", "format", "-t", clusterId, "-c", propertiesFile];
  const format = await startServerProcess({
    command: kafka.java,
    args: [...javaCommand(kafka, dir), ...args],
    logFile: join(dir, "format.log"),
    removeOnCrash: dir,
  });
  await until(() => !format.running(), "Kafka's storage is formatted", formatTimeoutMs).finally(() =>
    format.end(),
  );
  if (!format.log().includes("Formatting metadata")) {
    throw new Error(`Cannot format Kafka's storage: ${format.describe()}`);
  }
}

async function isServing(server: ServerProcess, port: number): Promise<boolean> {
  if (!server.running()) {
    const message = `Kafka has not started: ${server.describe()}`;
    throw /address already in use/i.test(server.log()) ? new PortTaken(message) : new Hopeless(message);
  }
  const cluster = await withAdmin([`127.0.0.1:${port}`], (admin) => admin.describeCluster(), 0);
  return cluster.brokers.length > 0;
}

/** Returns false if the topic exists already. */
function createTopic(brokers: string[], name: string, topic: Topic): Promise<boolean> {
  const { partitions, config } = typeof topic === "number" ? { partitions: topic, config: {} } : topic;
  const configEntries = Object.entries(config).map(([entry, value]) => ({ name: entry, value }));
  return withAdmin(brokers, (admin) =>
    admin.createTopics({
      topics: [{ topic: name, numPartitions: partitions, replicationFactor: 1, configEntries }],
      waitForLeaders: true,
    }),
  );
}

async function withAdmin<T>(
  brokers: string[],
  action: (admin: Admin) => Promise<T>,
  retries = retriesDefault,
): Promise<T> {
  const kafka = new Kafka({
    clientId: "test-support",
    brokers,
    logLevel: logLevel.NOTHING,
    connectionTimeout: requestTimeoutMs,
    requestTimeout: requestTimeoutMs,
    retry: { retries },
  });
  const admin = kafka.admin();
  try {
    await admin.connect();
    return await action(admin);
  } finally {
    await admin.disconnect();
  }
}
