import { isIPv4 } from "node:net";
import { z } from "zod";
import { type AccessSettings, readAccess } from "./access/settings.ts";
import { isNetwork } from "./http/trusted-proxies.ts";
import { CHANGES_KEPT_DEFAULT, CHANGES_KEPT_MAX } from "./inventory/change-history.ts";
import { OPERATION_RETENTION_MS_DEFAULT } from "./inventory/operation.ts";
import { type KafkaSettings, SASL_MECHANISMS } from "./kafka/kafkajs/client.ts";
import { LOG_FORMATS, LOG_LEVELS, type LogFormat, type LogLevel } from "./ops/logger.ts";
import { SAMPLERS, type TracingSettings } from "./ops/tracing.ts";
import type { RedisEndpoint } from "./redis/connection/endpoint.ts";
import { parseAddresses, readRedisEndpoint } from "./redis/connection/settings.ts";
import { BUCKETS_DEFAULT, BUCKETS_MAX, CLUSTER_BUCKETS_DEFAULT } from "./redis/keys.ts";
import type { CallLimits } from "./rpc/middleware/limits.ts";
import { readTls, type TlsSettings } from "./tls-settings.ts";
import { findUnknownVariables, type UnknownVariable } from "./unknown-variables.ts";

/** Every setting, read from the environment once, at start. */
export interface Config {
  readonly host: string;
  readonly port: number;
  /** Absent: the embedded store. */
  readonly redis: RedisEndpoint | undefined;
  /** Absent: no Kafka. */
  readonly kafka: KafkaSettings | undefined;
  /** Address of the port that serves metrics and health to operators. Absent: there is none. */
  readonly admin: { readonly host: string; readonly port: number } | undefined;
  /** Absent: no traces. */
  readonly tracing: TracingSettings | undefined;
  /** Absent: plaintext. */
  readonly tls: TlsSettings | undefined;
  /** Absent: every client may write. */
  readonly access: AccessSettings | undefined;
  readonly callLimits: CallLimits;
  /** Whether clients such as grpcurl may read the schema. */
  readonly reflection: boolean;
  readonly logLevel: LogLevel;
  readonly logFormat: LogFormat;
  /** The merchant's settings of the shoppers' page and the element. */
  readonly page: {
    readonly lowStockMax: number;
    readonly exactCountMax: number;
    readonly currency: string;
    /** Absent: the page has no name of a shop. */
    readonly shopName: string | undefined;
  };
  /** Addresses and networks of proxies whose X-Forwarded-For is trusted. */
  readonly trustedProxies: readonly string[];
  /** Other origins whose pages may use `<stock-count>`. */
  readonly embedOrigins: readonly string[];
  readonly watchHeartbeatMs: number;
  /** Demo catalog and demo shoppers. */
  readonly demo: boolean;
  /** Whether visitors of the page may reserve products of the demo. Never with Redis. */
  readonly demoReserve: boolean;
  /** Whether plain unary calls and watches take the fast path; otherwise Connect handles every call. */
  readonly fastPath: boolean;
  readonly buckets: number;
  /** Changes kept of each product. */
  readonly changesKept: number;
  /** How long a server repeats the store's refusal of a sold-out product, ms; 0: never. */
  readonly soldOutMs: number;
  readonly operationRetentionMs: number;
  /** Time between becoming unready and refusing connections, so that a load balancer notices in time. */
  readonly drainWaitMs: number;
  /** Longest time that calls in flight may take at shutdown. */
  readonly drainMsMax: number;
  /** The commit that this was built from. Absent: the one of the git checkout, if there is one. */
  readonly commit: string | undefined;
}

/** The environment is invalid. The message has one line for each fault. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

const HOUR_MS = 3_600_000;

const setting = {
  integer: (fallback: number, min: number, max: number) =>
    z
      .string()
      .regex(/^\d+$/, `must be a whole number from ${min} to ${max}`)
      .transform(Number)
      .refine((value) => value >= min && value <= max, `must be a whole number from ${min} to ${max}`)
      .default(fallback),
  flag: () =>
    z
      .enum(["on", "off", "true", "false", "1", "0"], "must be on or off")
      .transform((value) => value === "on" || value === "true" || value === "1"),
  oneOf: <const Values extends readonly [string, ...string[]]>(values: Values) =>
    z.enum(values, `must be one of ${values.join(", ")}`),
  /** A name that Kafka allows for a topic or a group. */
  topic: (fallback: string) =>
    z
      .string()
      .regex(/^[\w.-]{1,249}$/, "must have 1 to 249 characters of letters, digits, '.', '_' and '-'")
      .default(fallback),
  addresses: () =>
    z.string().transform((value, context) => {
      try {
        return parseAddresses(value);
      } catch (error) {
        const message = `must be host:port,host:port,…; ${(error as Error).message}`;
        context.addIssue({ code: "custom", message });
        return z.NEVER;
      }
    }),
  url: (...protocols: string[]) =>
    z.string().refine((value) => isUrlOf(value, protocols), {
      error: `must be a URL that begins with ${protocols.map((protocol) => `${protocol}//`).join(" or ")}`,
    }),
};

/** Variables whose values must not appear in messages. */
const SECRET = /PASSWORD$|URL$|TOKENS$/;

const TOPICS_DEFAULT = {
  KAFKA_PRODUCT_TOPIC: "product",
  KAFKA_COLLECTION_TOPIC: "collection",
  KAFKA_INVENTORY_TOPIC: "inventory",
  KAFKA_DEAD_LETTER_TOPIC: "product.inventory.dead-letter",
} as const;

/** Authentication. Parsed separately, so that its faults are reported together with those of the rest. */
const AccessEnvironment = z.object({
  HOST: z.string().default("127.0.0.1"),
  /** Counts as unset if it is invalid, which `Environment` reports. */
  AUTH: setting.flag().optional().catch(undefined),
  AUTH_TOKENS: z.string().optional(),
  AUTH_TOKENS_FILE: z.string().optional(),
  AUTH_JWKS: z.string().optional(),
  AUTH_JWT_ISSUER: z.string().optional(),
  AUTH_JWT_AUDIENCE: z.string().optional(),
  AUTH_JWT_ROLE_CLAIM: z.string().default("role"),
  TLS_CLIENT_CA: z.string().optional(),
  TLS_CLIENT_ROLES: z.string().optional(),
});

const Environment = AccessEnvironment.extend({
  AUTH: setting.flag().optional(),
  PORT: setting.integer(8080, 0, 65_535),
  REDIS_URL: setting.url("redis:", "rediss:").optional(),
  REDIS_HOST: z.string().optional(),
  REDIS_PORT: setting.integer(6379, 1, 65_535),
  REDIS_USERNAME: z.string().optional(),
  REDIS_PASSWORD: z.string().optional(),
  REDIS_TLS: setting.flag().default(false),
  REDIS_SENTINELS: setting.addresses().default([]),
  REDIS_MASTER_NAME: z.string().default("inventory"),
  REDIS_SENTINEL_PASSWORD: z.string().optional(),
  REDIS_CLUSTER: setting.addresses().default([]),
  REDIS_ACKS: setting.integer(0, 0, 5),
  KAFKA_BROKERS: z
    .string()
    .transform((value) => value.split(",").map((broker) => broker.trim()))
    .refine(
      (brokers) => brokers.every((broker) => /^[^\s:]+:\d+$/.test(broker)),
      "must be host:port,host:port,…",
    )
    .default([]),
  KAFKA_GROUP: setting.topic("inventory"),
  KAFKA_PRODUCT_TOPIC: setting.topic(TOPICS_DEFAULT.KAFKA_PRODUCT_TOPIC),
  KAFKA_COLLECTION_TOPIC: setting.topic(TOPICS_DEFAULT.KAFKA_COLLECTION_TOPIC),
  KAFKA_INVENTORY_TOPIC: setting.topic(TOPICS_DEFAULT.KAFKA_INVENTORY_TOPIC),
  KAFKA_DEAD_LETTER_TOPIC: setting.topic(TOPICS_DEFAULT.KAFKA_DEAD_LETTER_TOPIC),
  KAFKA_CREATE_TOPICS: setting.flag().default(false),
  KAFKA_TOPIC_PARTITIONS: setting.integer(3, 1, 1_000),
  KAFKA_DEAD_LETTER_WAIT_MS: setting.integer(60_000, 0, 86_400_000),
  KAFKA_SSL: setting.flag().default(false),
  KAFKA_SASL_MECHANISM: z
    .enum(SASL_MECHANISMS, `must be one of ${SASL_MECHANISMS.join(", ")}`)
    .default("scram-sha-512"),
  KAFKA_SASL_USERNAME: z.string().optional(),
  KAFKA_SASL_PASSWORD: z.string().optional(),
  ADMIN_HOST: z.string().default("127.0.0.1"),
  ADMIN_PORT: setting.integer(0, 0, 65_535).removeDefault().optional(),
  OTEL_EXPORTER_OTLP_ENDPOINT: setting.url("http:", "https:").optional(),
  OTEL_SERVICE_NAME: z.string().default("inventory"),
  OTEL_TRACES_SAMPLER: setting.oneOf(SAMPLERS).default("parentbased_always_on"),
  OTEL_TRACES_SAMPLER_ARG: z
    .string()
    .regex(/^(0(\.\d+)?|1(\.0+)?)$/, "must be a number from 0 to 1, such as 0.01")
    .transform(Number)
    .default(1),
  OTEL_BSP_SCHEDULE_DELAY: setting.integer(2_000, 10, 60_000),
  TLS_CERT: z.string().optional(),
  TLS_KEY: z.string().optional(),
  REFLECTION: setting.flag().default(true),
  SHED_DELAY_MS: setting.integer(200, 0, 60_000),
  CALLS_IN_FLIGHT_MAX: setting.integer(4_000, 1, 1_000_000),
  READS_PER_ADDRESS: setting.integer(1_000, 0, 1_000_000),
  LOG_LEVEL: setting.oneOf(LOG_LEVELS).default("info"),
  LOG_FORMAT: setting.oneOf(LOG_FORMATS).default("auto"),
  LOW_STOCK_MAX: setting.integer(5, 0, 1_000),
  EXACT_COUNT_MAX: setting.integer(0, 0, 1_000_000),
  SHOP_CURRENCY: z
    .string()
    .regex(/^[A-Z]{3}$/, "must be the three letters of a currency, such as EUR")
    .default("EUR"),
  TRUSTED_PROXIES: z
    .string()
    .transform((value) => value.split(",").map((network) => network.trim()))
    .refine(
      (networks) => networks.every(isNetwork),
      "must be address,network,…, such as 192.0.2.7,10.0.0.0/8,fd00::/8",
    )
    .default([]),
  EMBED_ORIGINS: z
    .string()
    .transform((value) => value.split(",").map((origin) => origin.trim()))
    .refine(
      (origins) => origins.every((origin) => URL.canParse(origin) && new URL(origin).origin === origin),
      "must be origin,origin,…, such as https://shop.example, without a path",
    )
    .default([]),
  WATCH_HEARTBEAT_MS: setting.integer(10_000, 500, 30_000),
  SHOP_NAME: z
    .string()
    .regex(/^\P{Cc}{1,60}$/u, "must have 1 to 60 characters, none of them a control character")
    .optional(),
  DEMO: setting.flag().optional(),
  DEMO_RESERVE: setting.flag().optional(),
  LANE: setting.flag().default(true),
  INVENTORY_BUCKETS: setting.integer(BUCKETS_DEFAULT, 1, BUCKETS_MAX).removeDefault().optional(),
  INVENTORY_SOLD_OUT_MS: setting.integer(100, 0, 1_000),
  INVENTORY_HISTORY: setting.integer(CHANGES_KEPT_DEFAULT, 1, CHANGES_KEPT_MAX),
  OPERATION_RETENTION_HOURS: setting.integer(OPERATION_RETENTION_MS_DEFAULT / HOUR_MS, 24, 8_760),
  DRAIN_WAIT_MS: setting.integer(0, 0, 60_000),
  DRAIN_DEADLINE_MS: setting.integer(10_000, 0, 600_000),
  INVENTORY_COMMIT: z.string().optional(),
});

/** The name of every variable. */
export const VARIABLES: readonly string[] = Object.keys(Environment.shape);

/** Variables that are set, have no effect, and look like misspelled ones of this service. */
export function readUnknownVariables(environment: NodeJS.ProcessEnv = process.env): UnknownVariable[] {
  return findUnknownVariables(environment, VARIABLES);
}

/** Also with an otherwise invalid configuration. */
export function readCommitVariable(environment: NodeJS.ProcessEnv = process.env): string | undefined {
  return environment["INVENTORY_COMMIT"] || undefined;
}

/** Reads the configuration. Throws a `ConfigError` with every fault. Empty variables count as unset. */
export function readConfig(environment: NodeJS.ProcessEnv = process.env): Config {
  const given = Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== ""));
  const parsed = Environment.safeParse(given);
  const faults = parsed.success
    ? []
    : parsed.error.issues.map((issue) => {
        const name = String(issue.path[0]);
        const value = SECRET.test(name) ? "" : ` is ${JSON.stringify(given[name])};`;
        return `${name}${value} ${issue.message}`;
      });
  checkKafka(given, faults);
  const tls = readTls(given, faults);
  const access = accessSettings(AccessEnvironment.parse(given), faults);
  const redis = parsed.success ? readRedisEndpoint(parsed.data, faults) : undefined;
  const demo = parsed.success
    ? demoSettings(parsed.data, given["DEMO_RESERVE"], redis !== undefined, faults)
    : undefined;
  if (!parsed.success || demo === undefined || faults.length > 0) {
    throw new ConfigError(faults.join("\n"));
  }
  const env = parsed.data;
  return Object.freeze({
    host: env.HOST,
    port: env.PORT,
    redis,
    kafka: kafkaSettings(env),
    admin: env.ADMIN_PORT === undefined ? undefined : { host: env.ADMIN_HOST, port: env.ADMIN_PORT },
    tracing: tracingSettings(env),
    tls,
    access,
    callLimits: {
      shedDelayMs: env.SHED_DELAY_MS,
      callsInFlightMax: env.CALLS_IN_FLIGHT_MAX,
      readsPerAddress: env.READS_PER_ADDRESS,
    },
    reflection: env.REFLECTION,
    logLevel: env.LOG_LEVEL,
    logFormat: env.LOG_FORMAT,
    page: {
      lowStockMax: env.LOW_STOCK_MAX,
      exactCountMax: env.EXACT_COUNT_MAX,
      currency: env.SHOP_CURRENCY,
      shopName: env.SHOP_NAME,
    },
    trustedProxies: env.TRUSTED_PROXIES,
    embedOrigins: env.EMBED_ORIGINS,
    watchHeartbeatMs: env.WATCH_HEARTBEAT_MS,
    ...demo,
    fastPath: env.LANE,
    buckets:
      env.INVENTORY_BUCKETS ?? (redis?.cluster === undefined ? BUCKETS_DEFAULT : CLUSTER_BUCKETS_DEFAULT),
    changesKept: env.INVENTORY_HISTORY,
    soldOutMs: env.INVENTORY_SOLD_OUT_MS,
    operationRetentionMs: env.OPERATION_RETENTION_HOURS * HOUR_MS,
    drainWaitMs: env.DRAIN_WAIT_MS,
    drainMsMax: env.DRAIN_DEADLINE_MS,
    commit: readCommitVariable(given),
  });
}

function isUrlOf(value: string, protocols: readonly string[]): boolean {
  const url = URL.parse(value);
  return url !== null && protocols.includes(url.protocol) && url.hostname !== "";
}

function kafkaSettings(env: z.infer<typeof Environment>): KafkaSettings | undefined {
  if (env.KAFKA_BROKERS.length === 0) {
    return undefined;
  }
  const { KAFKA_SASL_USERNAME: username, KAFKA_SASL_PASSWORD: password = "" } = env;
  return {
    brokers: env.KAFKA_BROKERS,
    group: env.KAFKA_GROUP,
    productTopic: env.KAFKA_PRODUCT_TOPIC,
    collectionTopic: env.KAFKA_COLLECTION_TOPIC,
    inventoryTopic: env.KAFKA_INVENTORY_TOPIC,
    deadLetterTopic: env.KAFKA_DEAD_LETTER_TOPIC,
    createTopics: env.KAFKA_CREATE_TOPICS,
    topicPartitions: env.KAFKA_TOPIC_PARTITIONS,
    deadLetterWaitMs: env.KAFKA_DEAD_LETTER_WAIT_MS,
    ssl: env.KAFKA_SSL,
    sasl: username === undefined ? undefined : { mechanism: env.KAFKA_SASL_MECHANISM, username, password },
  };
}

/** Visitors of the demo are not authenticated, so what they may reserve must never be real stock. */
function demoSettings(
  env: z.infer<typeof Environment>,
  reserveText: string | undefined,
  hasRedis: boolean,
  faults: string[],
): Pick<Config, "demo" | "demoReserve"> {
  const demo = env.DEMO ?? !hasRedis;
  const canReserve = demo && !hasRedis;
  if (env.DEMO_RESERVE === true && !canReserve) {
    const needed = hasRedis ? "the embedded store, and Redis is configured" : "DEMO, which is off";
    faults.push(
      `DEMO_RESERVE is ${JSON.stringify(reserveText)}; it lets every visitor reserve and buy, so it needs ${needed}`,
    );
  }
  return { demo, demoReserve: env.DEMO_RESERVE ?? canReserve };
}

function tracingSettings(env: z.infer<typeof Environment>): TracingSettings | undefined {
  const { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, OTEL_SERVICE_NAME: serviceName } = env;
  const { OTEL_TRACES_SAMPLER: sampler, OTEL_TRACES_SAMPLER_ARG: ratio } = env;
  const { OTEL_BSP_SCHEDULE_DELAY: exportIntervalMs } = env;
  return endpoint === undefined ? undefined : { endpoint, serviceName, sampler, ratio, exportIntervalMs };
}

/** Checks the variables of Kafka against each other: each topic has a name of its own, and a login is complete. */
function checkKafka(given: Readonly<Record<string, string | undefined>>, faults: string[]): void {
  const entries = Object.entries(TOPICS_DEFAULT).map(([name, fallback]): [string, string] => [
    name,
    given[name] ?? fallback,
  ]);
  for (const [index, [name, topic]] of entries.entries()) {
    const other = entries.slice(0, index).find(([, before]) => before === topic);
    if (other !== undefined) {
      faults.push(
        `${name} is ${JSON.stringify(topic)}; ${other[0]} has the same value, and each topic needs its own`,
      );
    }
  }
  if ((given["KAFKA_SASL_USERNAME"] === undefined) !== (given["KAFKA_SASL_PASSWORD"] === undefined)) {
    faults.push("KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD must be set together");
  }
}

/** Without authentication only clients on this machine may write, unless AUTH=off allows it to every client. */
function accessSettings(
  env: z.infer<typeof AccessEnvironment>,
  faults: string[],
): AccessSettings | undefined {
  const access = readAccess(env, faults);
  const isSet = access !== undefined;
  const ways = "AUTH_TOKENS, AUTH_TOKENS_FILE, AUTH_JWKS or TLS_CLIENT_CA";
  if (isSet && env.AUTH === false) {
    faults.push(`AUTH is "off"; but ${ways} is set: remove one of the two`);
  }
  if (!isSet && env.AUTH === true) {
    faults.push(`AUTH is "on"; it needs one of ${ways}`);
  }
  if (!isSet && env.AUTH === undefined && !isLoopback(env.HOST)) {
    faults.push(
      `HOST is ${JSON.stringify(env.HOST)}; clients on other machines could change stock without authentication: set ${ways}, or AUTH=off to allow it`,
    );
  }
  return access;
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || (isIPv4(host) && host.startsWith("127."));
}
