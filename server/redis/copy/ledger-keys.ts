import type { Redis } from "ioredis";
import type { Keys, OperationKind } from "../keys.ts";
import { type Client, primariesOf } from "./clients.ts";

/** Keys that Redis visits in one step of a scan. */
const KEYS_PER_STEP = 500;

/** Kinds of keys that are named by an ID: product, reservation or operation. */
export type NamedKind = "p" | "d" | "h" | "r" | "x" | "op" | "ref";
const NAMED_KINDS: ReadonlySet<string> = new Set<NamedKind>(["p", "d", "h", "r", "x", "op", "ref"]);
/** Kinds of which a bucket has one key each. */
const SINGLE_KINDS: ReadonlySet<string> = new Set([
  "products",
  "changes",
  "outbox",
  "bucket",
  "deadlines",
  "owed",
  "undecided",
  "layout",
  "collections",
  "publishers",
]);

/** A key of the ledger that is named by an ID. */
export interface NamedKey {
  readonly key: string;
  readonly bucket: number;
  readonly kind: NamedKind;
  /** The product, the reservation, the ID of a reference, or the kind and ID of an operation. */
  readonly name: string;
}

/** What one step of a scan has found. */
export interface ScanStep {
  readonly named: readonly NamedKey[];
  /** Keys of the ledger that this release does not know. */
  readonly unknown: readonly string[];
  /** Number of keys that do not belong to the ledger. */
  readonly foreign: number;
}

/** Visits the keys of a node. A key may be visited more than once if the node resizes its table meanwhile. */
export async function* scanNode(node: Redis, pattern = "*"): AsyncGenerator<ScanStep> {
  let cursor = "0";
  do {
    const [next, found] = await node.scan(cursor, "MATCH", pattern, "COUNT", KEYS_PER_STEP);
    cursor = next;
    yield classify([...new Set(found)]);
  } while (cursor !== "0");
}

/** Visits the keys of the ledger on all nodes. */
export async function* scanLedger(client: Client): AsyncGenerator<ScanStep> {
  for (const node of primariesOf(client)) {
    yield* scanNode(node, "{b*}:*");
  }
}

function classify(found: readonly string[]): ScanStep {
  const named: NamedKey[] = [];
  const unknown: string[] = [];
  let foreign = 0;
  for (const key of found) {
    const [, bucket, kind = "", name] = /^\{b(\d+)\}:([^:]*)(?::(.*))?$/s.exec(key) ?? [];
    if (bucket === undefined) {
      foreign += 1;
    } else if (name !== undefined && NAMED_KINDS.has(kind)) {
      named.push({ key, bucket: Number(bucket), kind: kind as NamedKind, name });
    } else if (name !== undefined || !SINGLE_KINDS.has(kind)) {
      unknown.push(key);
    }
  }
  return { named, unknown, foreign };
}

/** An operation as its key names it. Layout 2 does not have the owner. */
export interface OperationName {
  readonly kind: OperationKind;
  readonly ownerId: string | undefined;
  readonly id: string;
}

const OPERATION_KINDS: readonly OperationKind[] = ["count", "adjust", "return"];

/** Parses what follows `op:`. `undefined` if it is no operation of the layout. */
export function parseOperation(name: string, layoutVersion: number): OperationName | undefined {
  const kind = OPERATION_KINDS.find((each) => name.startsWith(`${each}:`));
  if (kind === undefined) {
    return undefined;
  }
  const rest = name.slice(kind.length + 1);
  if (layoutVersion === 2) {
    return { kind, ownerId: undefined, id: rest };
  }
  const end = rest.indexOf(":");
  if (end === -1) {
    return undefined;
  }
  // The inverse of the escaping in `Keys.operation`.
  const ownerId = rest.slice(0, end).replaceAll("%3A", ":").replaceAll("%25", "%");
  return { kind, ownerId, id: rest.slice(end + 1) };
}

/** Kinds whose bucket is that of their own name; that of the others depends on what they refer to. */
const PLACED_BY_NAME: ReadonlySet<NamedKind> = new Set<NamedKind>(["p", "d", "h", "r"]);

export function isInPlace({ kind, name, bucket }: NamedKey, keys: Keys): boolean {
  return !PLACED_BY_NAME.has(kind) || keys.bucketOf(name) === bucket;
}
