/**
 * Adopts all counts that the Go service keeps in plain keys. `--dry-run` only lists them. `--match=PATTERN` restricts the
 * keys. Takes the service's settings from the environment: REDIS_URL, INVENTORY_BUCKETS and the rest.
 */
import { parseArgs } from "node:util";
import { pino } from "pino";
import { ConfigError, readConfig } from "../server/config.ts";
import { adoptPlainKeys, PLAIN_KEY_KINDS, type PlainKeyKind } from "../server/redis/adopt-plain-keys.ts";
import { RedisConnection } from "../server/redis/connection/client.ts";
import { Keys } from "../server/redis/keys.ts";
import { RedisStore } from "../server/redis/store.ts";

const exitBadConfig = 2;
const connectMsMax = 10_000;

const interrupted = new AbortController();
process.once("SIGINT", () => interrupted.abort(new Error("Interrupted; run it again to adopt the rest")));

try {
  const { values } = parseArgs({
    options: { "dry-run": { type: "boolean", default: false }, match: { type: "string", default: "*" } },
  });
  await adopt(values["dry-run"], values.match);
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = error instanceof ConfigError ? exitBadConfig : 1;
}

async function adopt(dryRun: boolean, match: string): Promise<void> {
  const { redis: endpoint, buckets } = readConfig();
  if (endpoint === undefined) {
    throw new ConfigError("REDIS_URL is not set; it must be the Redis that the Go service uses");
  }
  const [log, keys] = [pino({ level: "silent" }), new Keys(buckets)];
  const connection = new RedisConnection("adopt", endpoint, log);
  const store = dryRun ? undefined : new RedisStore({ endpoint, log, keys });
  const counts = new Map<PlainKeyKind, number>();
  try {
    const connected = AbortSignal.timeout(connectMsMax);
    await Promise.race([
      connection.firstReady,
      new Promise((_, reject) =>
        connected.addEventListener("abort", () => reject(new Error("Redis cannot be reached"))),
      ),
    ]);
    await store?.start(connectMsMax);
    await adoptPlainKeys({
      client: connection.client,
      keys,
      store,
      match,
      onKey: (key, kind, value) => {
        counts.set(kind, (counts.get(kind) ?? 0) + 1);
        if (dryRun || kind.startsWith("not-")) {
          // Of other values, which may be secrets of other services, only the kind is shown.
          const shown = kind.startsWith("not-") ? "" : ` ${value}`;
          process.stdout.write(`${kind.padEnd(11)} ${JSON.stringify(key)}${shown}\n`);
        }
      },
      signal: interrupted.signal,
    });
  } finally {
    connection.close();
    await store?.close();
  }
  const summary = PLAIN_KEY_KINDS.map((kind) => `${counts.get(kind) ?? 0} ${kind}`).join(", ");
  process.stdout.write(`${summary}${dryRun ? "; a dry run, nothing was adopted" : ""}\n`);
}
