/**
 * The parts of kafkajs that are not in its API and that this folder uses, with their types. Everything else goes through
 * the public API. kafkajs is pinned to one version, and `test/kafka/kafkajs.test.ts` checks that these parts are there.
 */
import { createRequire } from "node:module";
import type { Kafka } from "kafkajs";

const require = createRequire(import.meta.url);

interface ApiVersions {
  readonly [apiKey: number]: { readonly minVersion: number; readonly maxVersion: number } | undefined;
}

interface ConnectionPool {
  readonly host: string;
  readonly port: number;
  send(request: object): Promise<unknown>;
}

/** A connection to one broker: authenticated, and with the API versions of the broker. */
export interface InternalBroker {
  readonly versions: ApiVersions | null;
  readonly connectionPool: ConnectionPool;
  connect(): Promise<void>;
  disconnect(): Promise<void>;
}

interface Address {
  readonly host: string;
  readonly port: number;
  readonly rack: string | null;
}

export interface InternalCluster {
  readonly rootLogger: unknown;
  readonly connectionPoolBuilder: {
    /** The address of a configured broker, in rotation, unless `address` is given. */
    build(address?: Address): Promise<ConnectionPool>;
  };
  readonly brokerPool: {
    createBroker(options: { logger: unknown; connectionPool: ConnectionPool }): InternalBroker;
  };
}

interface ProtocolErrors {
  readonly errorCodes: readonly { type: string; code: number; retriable: boolean; message: string }[];
}

/** Creates a cluster object of kafkajs, which has the client's addresses, TLS and SASL settings. It is not connected. */
export function createCluster(kafka: Kafka): InternalCluster {
  const symbol = Object.getOwnPropertySymbols(kafka).find(
    ({ description }) => description === "private:Kafka:createCluster",
  );
  const create = symbol && (kafka as unknown as Record<symbol, unknown>)[symbol];
  if (typeof create !== "function") {
    throw new Error("This version of kafkajs has no createCluster");
  }
  return create({ allowAutoTopicCreation: false }) as InternalCluster;
}

const { errorCodes } = require("kafkajs/src/protocol/error") as ProtocolErrors;
const errors = new Map(errorCodes.map((each) => [each.code, each]));

/** Codes that kafkajs does not know. */
const NEWER_ERRORS: ReadonlyMap<number, string> = new Map([[100, "UNKNOWN_TOPIC_ID"]]);

/** The name of an error code, its meaning, and whether a retry may succeed. */
export function describeErrorCode(code: number): { type: string; message: string; isRetriable: boolean } {
  const known = errors.get(code);
  const type = known?.type ?? NEWER_ERRORS.get(code) ?? `ERROR_${code}`;
  const message = known === undefined ? type : `${type}: ${known.message}`;
  return { type, message, isRetriable: known?.retriable ?? false };
}

/** CRC-32C, which `node:zlib` does not have. */
export const crc32c = require("kafkajs/src/protocol/recordBatch/crc32C") as (bytes: Buffer) => number;
