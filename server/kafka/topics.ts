import { EventEmitter, once } from "node:events";
import { setTimeout as wait } from "node:timers/promises";
import type { Logger } from "pino";
import type { Metrics } from "../ops/metrics.ts";
import type { createTopic, TopicConfig } from "./kafkajs/admin.ts";
import type { Cluster } from "./kafkajs/cluster.ts";
import { BrokerError, ErrorCode } from "./kafkajs/errors.ts";
import type { TopicMetadata } from "./kafkajs/protocol.ts";

/** Interval between two polls of the metadata: one request each. Bounds the delay until a new topic is used. */
const POLL_INTERVAL_MS = 2_000;

/** A topic as the latest metadata has it. */
export interface TopicState {
  readonly name: string;
  /** Why the topic cannot be used; `undefined` if it can be. */
  readonly problem: string | undefined;
  /** Changes if the topic is deleted and created again. `undefined` before Kafka 2.8. */
  readonly id: string | undefined;
  readonly partitions: readonly number[];
}

/** A topic that this service uses, and what depends on it. */
export interface WantedTopic {
  readonly name: string;
  /** Ends the sentence "Topic … does not exist: …". */
  readonly consequence: string;
  /** How to create the topic; `undefined` if that is not allowed. */
  readonly config: TopicConfig | undefined;
}

interface TopicWatchOptions {
  readonly cluster: Cluster;
  readonly createTopic: (name: string, config: TopicConfig) => ReturnType<typeof createTopic>;
  readonly topics: readonly WantedTopic[];
  readonly metrics: Metrics;
  readonly log: Logger;
}

/**
 * Watches which of the service's topics exist, each for itself. Creates missing ones if that is allowed. While the
 * brokers cannot be reached, the topics keep their last state.
 */
export class TopicWatch {
  readonly #options: TopicWatchOptions;
  readonly #states = new Map<string, TopicState>();
  readonly #changes = new EventEmitter<{ change: [] }>();
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  #polling: Promise<void> | undefined;
  #unreachable: string | undefined;

  constructor(options: TopicWatchOptions) {
    this.#options = options;
    this.#changes.setMaxListeners(0);
    this.#running = this.#pollUntilStopped();
  }

  /** The state of a topic; `undefined` before the first response of a broker. */
  get(name: string): TopicState | undefined {
    return this.#states.get(name);
  }

  /** Those of the named topics that can be used. */
  usable(names: readonly string[]): string[] {
    return names.filter((name) => {
      const state = this.#states.get(name);
      return state !== undefined && state.problem === undefined;
    });
  }

  /** Current problems, one sentence each. */
  get troubles(): string[] {
    return this.#options.topics.flatMap(({ name, consequence }) => {
      const problem = this.#states.get(name)?.problem;
      return problem === undefined ? [] : [`Topic ${name} ${problem}: ${consequence}`];
    });
  }

  /** Why the brokers cannot be asked for metadata. */
  get unreachable(): string | undefined {
    return this.#unreachable;
  }

  /** Resolves after the next change of any topic. Rejects if `signal` is aborted. */
  async changed(signal: AbortSignal): Promise<void> {
    await once(this.#changes, "change", { signal });
  }

  /** Polls now. Does not reject. */
  async refresh(): Promise<void> {
    this.#polling ??= this.#poll().finally(() => {
      this.#polling = undefined;
    });
    await this.#polling;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #pollUntilStopped(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      await this.refresh();
      await wait(POLL_INTERVAL_MS, undefined, { signal }).catch(() => {});
    }
  }

  async #poll(): Promise<void> {
    const { cluster, topics, log } = this.#options;
    let described: TopicMetadata[];
    try {
      described = await cluster.describeTopics(topics.map(({ name }) => name));
    } catch (error) {
      if (this.#unreachable === undefined && !this.#stopping.signal.aborted) {
        log.warn({ err: error }, "The Kafka brokers cannot be reached");
      }
      this.#unreachable = error instanceof Error ? error.message : String(error);
      return;
    }
    if (this.#unreachable !== undefined) {
      log.info("The Kafka brokers can be reached again");
      this.#unreachable = undefined;
    }
    let hasChanged = false;
    for (const topic of topics) {
      const metadata = described.find(({ name }) => name === topic.name);
      const state = await this.#stateOf(topic, metadata);
      hasChanged = this.#update(state) || hasChanged;
    }
    if (hasChanged) {
      this.#changes.emit("change");
    }
  }

  async #stateOf({ name, config }: WantedTopic, metadata: TopicMetadata | undefined): Promise<TopicState> {
    const errorCode = metadata?.errorCode ?? ErrorCode.unknownTopicOrPartition;
    if (errorCode === ErrorCode.none && metadata !== undefined) {
      const partitions = metadata.partitions.map(({ partition }) => partition).sort((a, b) => a - b);
      return { name, problem: undefined, id: metadata.id, partitions };
    }
    if (errorCode === ErrorCode.leaderNotAvailable) {
      // The topic is being created, or its brokers are down.
      return this.#states.get(name) ?? { name, problem: "has no leader", id: undefined, partitions: [] };
    }
    const isMissing = errorCode === ErrorCode.unknownTopicOrPartition;
    const failure = isMissing && config !== undefined ? await this.#create(name, config) : undefined;
    const problem = isMissing
      ? `does not exist${failure === undefined ? "" : ` and cannot be created (${failure})`}`
      : `cannot be used (${new BrokerError(errorCode).message})`;
    return { name, problem, id: undefined, partitions: [] };
  }

  async #create(name: string, config: TopicConfig): Promise<string | undefined> {
    const { log } = this.#options;
    try {
      await this.#options.createTopic(name, config);
      log.info({ topic: name, ...config }, "Created a missing topic");
      return undefined;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  /** True if consumers or producers of the topic must adapt. */
  #update(state: TopicState): boolean {
    const { metrics, log } = this.#options;
    const before = this.#states.get(state.name);
    this.#states.set(state.name, state);
    metrics.topicMissing.set({ topic: state.name }, state.problem === undefined ? 0 : 1);
    if (state.problem !== undefined && before?.problem !== state.problem) {
      log.warn({ topic: state.name, problem: state.problem }, "A topic cannot be used");
    } else if (state.problem === undefined && before?.problem !== undefined) {
      log.info({ topic: state.name, partitions: state.partitions.length }, "A topic can be used now");
    }
    return before?.problem !== state.problem || before?.id !== state.id;
  }
}
