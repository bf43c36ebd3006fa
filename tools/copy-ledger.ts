/**
 * Copies the ledger to an empty Redis or Redis Cluster, in the layout of this release and in any number of buckets, and
 * compares the copy with the source. No server may run on either. See "Moving the data" in docs/operations.md.
 */
import { parseArgs } from "node:util";
import { parseAddresses } from "../server/redis/connection/settings.ts";
import { type Client, openCluster, openRedis } from "../server/redis/copy/clients.ts";
import { copyLedger } from "../server/redis/copy/copy-ledger.ts";
import { Source } from "../server/redis/copy/source.ts";
import { Target } from "../server/redis/copy/target.ts";
import { BUCKETS_DEFAULT, BUCKETS_MAX, CLUSTER_BUCKETS_DEFAULT } from "../server/redis/keys.ts";

const USAGE = `npm run copy-ledger -- --from redis://… (--to redis://… | --to-cluster host:port,…) [options]

  --from URL                the ledger that is copied; it is only read
  --to URL                  an empty Redis
  --to-cluster HOST:PORT,…  some nodes of an empty Redis Cluster; REDIS_USERNAME, REDIS_PASSWORD and
                            REDIS_TLS=on apply to it
  --buckets N               buckets of the copy, 1 to ${BUCKETS_MAX}; default ${BUCKETS_DEFAULT}, of a Cluster ${CLUSTER_BUCKETS_DEFAULT}
  --dry-run                 read and check the source, and write nothing; needs no target
  --discard-unpublished     copy although changes were not published to Kafka; the newest state of
                            every product is published instead
  --force                   copy although servers are connected
`;

const exitBadUsage = 2;

class UsageError extends Error {}

try {
  process.exitCode = (await main()) ? 0 : 1;
} catch (error) {
  const isUsage =
    error instanceof UsageError || (error as { code?: string }).code?.startsWith("ERR_PARSE_ARGS");
  process.stderr.write(
    `${error instanceof Error ? error.message : String(error)}\n${isUsage ? `\n${USAGE}` : ""}`,
  );
  process.exitCode = isUsage ? exitBadUsage : 1;
}

async function main(): Promise<boolean> {
  const { values } = parseArgs({
    options: {
      from: { type: "string" },
      to: { type: "string" },
      "to-cluster": { type: "string" },
      buckets: { type: "string" },
      "dry-run": { type: "boolean", default: false },
      "discard-unpublished": { type: "boolean", default: false },
      force: { type: "boolean", default: false },
    },
  });
  const { from, to, "to-cluster": toCluster, "dry-run": dryRun } = values;
  if (from === undefined) {
    throw new UsageError("--from is missing");
  }
  if (!dryRun && (to === undefined) === (toCluster === undefined)) {
    throw new UsageError("Give one of --to and --to-cluster");
  }
  const buckets = readBuckets(
    values.buckets ?? (toCluster === undefined ? BUCKETS_DEFAULT : CLUSTER_BUCKETS_DEFAULT),
  );
  const clients: Client[] = [];
  try {
    const source = await openRedis(from);
    clients.push(source);
    const target = dryRun ? undefined : await openTarget(to, toCluster);
    clients.push(...(target === undefined ? [] : [target]));
    return await copyLedger({
      source: await Source.open(source),
      target: target && new Target(target, buckets),
      force: values.force,
      discardUnpublished: values["discard-unpublished"],
      print: (line) => process.stdout.write(`${line}\n`),
    });
  } finally {
    for (const client of clients) {
      client.disconnect();
    }
  }
}

function openTarget(to: string | undefined, toCluster: string | undefined): Promise<Client> {
  if (toCluster === undefined) {
    return openRedis(to ?? "");
  }
  const { REDIS_USERNAME: username, REDIS_PASSWORD: password, REDIS_TLS: tls } = process.env;
  return openCluster({ nodes: parseAddresses(toCluster), username, password, tls: tls === "on" });
}

function readBuckets(given: string | number): number {
  const buckets = Number(given);
  if (!Number.isInteger(buckets) || buckets < 1 || buckets > BUCKETS_MAX) {
    throw new UsageError(`--buckets is ${given}; give a whole number from 1 to ${BUCKETS_MAX}`);
  }
  return buckets;
}
