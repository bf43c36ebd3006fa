import type { Kafka } from "kafkajs";
import { createCluster, type InternalBroker, type InternalCluster } from "./internals.ts";

/** One request of Kafka's protocol. */
export interface ProtocolRequest {
  readonly apiKey: number;
  readonly apiName: string;
  readonly apiVersion: number;
  /** Everything after the client ID of the request header. */
  readonly body: Buffer;
  /** How long the broker may hold the request back, in addition to the request timeout. */
  readonly holdMs?: number;
}

export interface Node {
  readonly nodeId: number;
  readonly host: string;
  readonly port: number;
  readonly rack: string | null;
}

/** Timeout for a response, after which the connection counts as broken. */
export const REQUEST_MS_MAX = 10_000;
/** Longest that closing the connections may take. */
const CLOSE_MS_MAX = 1_000;

/**
 * Sends single requests over kafkajs's connections, which do TLS, SASL and the correlation of responses. It connects on
 * first use. After an error of a connection, the next request connects again.
 */
export class Connections {
  readonly #cluster: InternalCluster;
  readonly #brokers = new Map<string, Promise<InternalBroker>>();
  #nodes: ReadonlyMap<number, Node> = new Map();
  #closed = false;

  constructor(kafka: Kafka) {
    this.#cluster = createCluster(kafka);
  }

  /** Replaces the addresses of the brokers, as the latest metadata has them. */
  setNodes(nodes: readonly Node[]): void {
    this.#nodes = new Map(nodes.map((node) => [node.nodeId, node]));
  }

  knows(nodeId: number): boolean {
    return this.#nodes.has(nodeId);
  }

  /**
   * Sends a request to a broker, or to any configured one if `nodeId` is undefined. `build` gets the latest version of
   * the API that the broker supports. Resolves with the response after its correlation ID.
   */
  async send(
    nodeId: number | undefined,
    apiKey: number,
    build: (maxVersion: number) => ProtocolRequest,
  ): Promise<{ response: Buffer; version: number }> {
    const { key, connecting, broker } = await this.#connect(nodeId);
    const maxVersion = broker.versions?.[apiKey]?.maxVersion ?? 0;
    const { apiName, apiVersion, body, holdMs } = build(maxVersion);
    try {
      const response = await broker.connectionPool.send({
        // kafkajs takes an encoder, of which it reads these two properties.
        request: { apiKey, apiName, apiVersion, encode: async () => ({ buf: body, buffer: body }) },
        response: { decode: async (payload: Buffer) => ({ payload }), parse: async (data: unknown) => data },
        requestTimeout: holdMs === undefined ? null : holdMs + REQUEST_MS_MAX,
        logResponseError: false,
      });
      return { response: (response as { payload: Buffer }).payload, version: apiVersion };
    } catch (error) {
      void this.#drop(key, connecting);
      throw error;
    }
  }

  /** Pending requests reject. */
  async close(): Promise<void> {
    this.#closed = true;
    const brokers = [...this.#brokers];
    const timeout = Promise.withResolvers<void>();
    const timer = setTimeout(timeout.resolve, CLOSE_MS_MAX);
    await Promise.race([
      Promise.all(brokers.map(([key, connecting]) => this.#drop(key, connecting))),
      timeout.promise,
    ]);
    clearTimeout(timer);
  }

  async #connect(
    nodeId: number | undefined,
  ): Promise<{ key: string; connecting: Promise<InternalBroker>; broker: InternalBroker }> {
    const node = nodeId === undefined ? undefined : this.#nodes.get(nodeId);
    if (nodeId !== undefined && node === undefined) {
      throw new Error(`Kafka's metadata has no broker ${nodeId}`);
    }
    // A broker that moves gets a new connection.
    const key = node === undefined ? "configured" : `${node.nodeId} ${node.host}:${node.port}`;
    if (this.#closed) {
      throw new Error("The Kafka client is closed");
    }
    const connecting = this.#brokers.get(key) ?? this.#open(node);
    this.#brokers.set(key, connecting);
    try {
      return { key, connecting, broker: await connecting };
    } catch (error) {
      void this.#drop(key, connecting);
      throw error;
    }
  }

  async #open(node: Node | undefined): Promise<InternalBroker> {
    const { connectionPoolBuilder, brokerPool, rootLogger } = this.#cluster;
    const connectionPool = await connectionPoolBuilder.build(node);
    const broker = brokerPool.createBroker({ logger: rootLogger, connectionPool });
    try {
      await broker.connect();
      return broker;
    } catch (error) {
      await broker.disconnect().catch(() => {});
      throw error;
    }
  }

  async #drop(key: string, connecting: Promise<InternalBroker>): Promise<void> {
    if (this.#brokers.get(key) === connecting) {
      this.#brokers.delete(key);
    }
    // A failure to connect has been reported already, and there is nothing to disconnect then.
    await connecting.then((broker) => broker.disconnect()).catch(() => {});
  }
}
