import { readFileSync } from "node:fs";
import { z } from "zod";
import { OPERATION_RETENTION_MS_DEFAULT } from "./inventory/operation.ts";
import { LOG_FORMATS, LOG_LEVELS, type LogFormat, type LogLevel } from "./ops/logger.ts";
import type { RedisEndpoint } from "./redis/client.ts";
import { BUCKETS_DEFAULT, BUCKETS_MAX } from "./redis/keys.ts";

/** Everything that can be set from outside. Made once, at start. */
export interface Config {
  readonly host: string;
  readonly port: number;
  /** Absent: the embedded store. */
  readonly redis: RedisEndpoint | undefined;
  /** Empty: no Kafka. */
  readonly kafkaBrokers: readonly string[];
  /** Absent: plaintext. */
  readonly tls: { readonly cert: Buffer; readonly key: Buffer } | undefined;
  readonly logLevel: LogLevel;
  readonly logFormat: LogFormat;
  /** Demo catalog and demo shoppers. */
  readonly demo: boolean;
  readonly buckets: number;
  readonly operationRetentionMs: number;
  /** Between "not ready" and the first refused connection, so that a balancer sees it in time. */
  readonly drainWaitMs: number;
  /** How long requests in flight may take to end at shutdown. */
  readonly drainMsMax: number;
}

/** Every fault of the environment at once, a line each. */
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
  url: (...protocols: string[]) =>
    z.string().refine((value) => URL.canParse(value) && protocols.includes(new URL(value).protocol), {
      error: `must be a URL that begins with ${protocols.map((protocol) => `${protocol}//`).join(" or ")}`,
    }),
};

const Environment = z.object({
  HOST: z.string().default("127.0.0.1"),
  PORT: setting.integer(8080, 0, 65_535),
  REDIS_URL: setting.url("redis:", "rediss:").optional(),
  REDIS_HOST: z.string().optional(),
  REDIS_PORT: setting.integer(6379, 1, 65_535),
  REDIS_PASSWORD: z.string().optional(),
  KAFKA_BROKERS: z
    .string()
    .transform((value) => value.split(",").map((broker) => broker.trim()))
    .refine(
      (brokers) => brokers.every((broker) => /^[^\s:]+:\d+$/.test(broker)),
      "must be host:port,host:port,…",
    )
    .default([]),
  TLS_CERT: z.string().optional(),
  TLS_KEY: z.string().optional(),
  LOG_LEVEL: setting.oneOf(LOG_LEVELS).default("info"),
  LOG_FORMAT: setting.oneOf(LOG_FORMATS).default("auto"),
  DEMO: setting.flag().optional(),
  INVENTORY_BUCKETS: setting.integer(BUCKETS_DEFAULT, 1, BUCKETS_MAX),
  OPERATION_RETENTION_HOURS: setting.integer(OPERATION_RETENTION_MS_DEFAULT / HOUR_MS, 24, 8_760),
  DRAIN_WAIT_MS: setting.integer(0, 0, 60_000),
  DRAIN_DEADLINE_MS: setting.integer(10_000, 0, 600_000),
});

/** Reads the configuration; throws a `ConfigError` that tells all faults. Empty variables count as not set. */
export function readConfig(environment: NodeJS.ProcessEnv = process.env): Config {
  const given = Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== ""));
  const parsed = Environment.safeParse(given);
  const faults = parsed.success
    ? []
    : parsed.error.issues.map((issue) => {
        const name = String(issue.path[0]);
        const met =
          name.endsWith("PASSWORD") || name.endsWith("URL") ? "" : ` is ${JSON.stringify(given[name])};`;
        return `${name}${met} ${issue.message}`;
      });
  const tls = readTls(given["TLS_CERT"], given["TLS_KEY"], faults);
  if (!parsed.success || faults.length > 0) {
    throw new ConfigError(faults.join("\n"));
  }
  const env = parsed.data;
  return Object.freeze({
    host: env.HOST,
    port: env.PORT,
    redis: redisEndpoint(env),
    kafkaBrokers: env.KAFKA_BROKERS,
    tls,
    logLevel: env.LOG_LEVEL,
    logFormat: env.LOG_FORMAT,
    demo: env.DEMO ?? redisEndpoint(env) === undefined,
    buckets: env.INVENTORY_BUCKETS,
    operationRetentionMs: env.OPERATION_RETENTION_HOURS * HOUR_MS,
    drainWaitMs: env.DRAIN_WAIT_MS,
    drainMsMax: env.DRAIN_DEADLINE_MS,
  });
}

/** REDIS_URL, or else REDIS_HOST with its port, as the Go service had them. */
function redisEndpoint(env: z.infer<typeof Environment>): RedisEndpoint | undefined {
  if (env.REDIS_URL !== undefined) {
    return { url: env.REDIS_URL, password: env.REDIS_PASSWORD };
  }
  if (env.REDIS_HOST !== undefined) {
    return { url: `redis://${env.REDIS_HOST}:${env.REDIS_PORT}`, password: env.REDIS_PASSWORD };
  }
  return undefined;
}

function readTls(cert: string | undefined, key: string | undefined, faults: string[]): Config["tls"] {
  if (cert === undefined && key === undefined) {
    return undefined;
  }
  const read = (name: string, path: string | undefined): Buffer => {
    if (path === undefined) {
      faults.push(`${name} is not set; TLS needs both TLS_CERT and TLS_KEY`);
      return Buffer.alloc(0);
    }
    try {
      return readFileSync(path);
    } catch (error) {
      faults.push(`${name} is ${JSON.stringify(path)}; it cannot be read: ${(error as Error).message}`);
      return Buffer.alloc(0);
    }
  };
  return { cert: read("TLS_CERT", cert), key: read("TLS_KEY", key) };
}
