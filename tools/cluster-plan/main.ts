/**
 * Prints which slots each primary of a Redis Cluster should have so that the buckets are divided evenly.
 *   --primaries 3 [--buckets 64]               of a new cluster
 *   --node HOST:PORT [--buckets 64]            the moves in an existing one, such as after primaries were added
 *   --node HOST:PORT --remove NODE_ID          likewise, so that a primary has no slots left; may be repeated
 * It changes nothing. With --node it takes REDIS_USERNAME, REDIS_PASSWORD and REDIS_TLS from the environment.
 */
import { parseArgs } from "node:util";
import { BUCKETS_MAX, CLUSTER_BUCKETS_DEFAULT } from "../../server/redis/keys.ts";
import { type ClusterView, type PrimaryNode, readCluster } from "./nodes.ts";
import { countBuckets, evenRanges, type Move, planMoves, planRanges, type SlotRange } from "./slots.ts";

const REDIS_PORT = 6379;
const exitUsage = 2;

class UsageError extends Error {}

try {
  const { values } = parseArgs({
    options: {
      buckets: { type: "string", default: String(CLUSTER_BUCKETS_DEFAULT) },
      primaries: { type: "string" },
      node: { type: "string" },
      remove: { type: "string", multiple: true, default: [] },
    },
  });
  const buckets = integer("--buckets", values.buckets, BUCKETS_MAX);
  if ((values.primaries === undefined) === (values.node === undefined)) {
    throw new UsageError("Either --primaries or --node is needed");
  }
  if (values.primaries !== undefined) printNew(buckets, integer("--primaries", values.primaries, buckets));
  if (values.node !== undefined) await printMoves(buckets, values.node, values.remove);
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  const isUsage = error instanceof UsageError || (error instanceof TypeError && "code" in error);
  process.exitCode = isUsage ? exitUsage : 1;
}

function printNew(buckets: number, primaries: number): void {
  const ranges = planRanges(buckets, primaries);
  print(`${buckets} buckets on ${primaries} primaries`, "");
  print(row("primary", "buckets", "slots"));
  for (const [index, range] of ranges.entries()) {
    print(row(String(index + 1), String(countBuckets(buckets, [range])), text(range)));
  }
  const even = evenRanges(primaries).map((range) => countBuckets(buckets, [range]));
  print(
    "",
    `Equal numbers of slots, as redis-cli --cluster create assigns, would be ${even.join(", ")} buckets.`,
  );
  print("", "For deploy/redis/create-cluster.sh:", `SLOTS="${ranges.map(text).join(" ")}"`);
}

async function printMoves(buckets: number, node: string, remove: readonly string[]): Promise<void> {
  const [host = "", port = String(REDIS_PORT)] = node.split(/:(?=\d+$)/);
  const cluster = await readCluster(host, integer("--node: port", port, 65_535));
  const { primaries, server } = cluster;
  const leaving = new Set(
    remove.map((id) => {
      const index = primaries.findIndex((primary) => primary.id === id);
      if (index === -1) throw new UsageError(`--remove: ${node} knows no primary ${id}`);
      return index;
    }),
  );
  if (leaving.size === primaries.length) throw new UsageError("--remove: no primary would be left");
  const moves = planMoves(
    buckets,
    primaries.map(({ ranges }) => ranges),
    leaving,
  );
  print(`${buckets} buckets on ${primaries.length} primaries, ${server}`, "");
  print(row("primary", "buckets", "after", "node"));
  for (const [index, { address, id, ranges }] of primaries.entries()) {
    const before = countBuckets(buckets, ranges);
    const moved = (key: "from" | "to"): number =>
      moves.filter((move) => move[key] === index).reduce((sum, move) => sum + move.buckets, 0);
    print(row(address, String(before), String(before - moved("from") + moved("to")), id));
  }
  print("");
  if (moves.length === 0) {
    print("Nothing is to be moved.");
  } else if (cluster.migration === "none") {
    print(`${server} cannot move slots atomically, so they are not to be moved while the service runs.`);
    print("Valkey 9.0 and Redis 8.4 can. docs/operations.md, Moving buckets, has the other way.", "");
    for (const { from, to, ranges } of moves) {
      print(`${primaries[from]?.address} to ${primaries[to]?.address}: ${ranges.map(text).join(" ")}`);
    }
  } else {
    print("One after the other, each when the one before is complete (docs/operations.md, Moving buckets):");
    for (const move of moves) print(command(cluster, move));
  }
}

function command({ primaries, migration }: ClusterView, { from, to, ranges }: Move): string {
  const [source, target] = [primaries[from], primaries[to]];
  if (source === undefined || target === undefined) throw new Error(`There is no primary ${from} or ${to}`);
  const slots = ranges.map(({ first, last }) => `${first} ${last}`).join(" ");
  return migration === "valkey"
    ? `${cli(source)} cluster migrateslots slotsrange ${slots} node ${target.id}`
    : `${cli(target)} cluster migration import ${slots}`;
}

function cli({ address }: PrimaryNode): string {
  const [host, port] = address.split(/:(?=\d+$)/);
  return `redis-cli -h ${host} -p ${port}`;
}

function text({ first, last }: SlotRange): string {
  return first === last ? String(first) : `${first}-${last}`;
}

function row(...cells: readonly string[]): string {
  return cells.map((cell, index) => (index === 0 ? cell.padEnd(22) : cell.padStart(8))).join("  ");
}

function print(...lines: readonly string[]): void {
  process.stdout.write(`${lines.join("\n")}\n`);
}

function integer(name: string, value: string, max: number): number {
  const number = Number(value);
  if (!/^\d+$/.test(value) || number < 1 || number > max) {
    throw new UsageError(`${name} is ${value}; it must be an integer from 1 to ${max}`);
  }
  return number;
}
