import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** A Lua script and the SHA-1 under which Redis caches it. */
export interface Script {
  readonly source: string;
  readonly sha1: string;
}

/** The operations of the mutation script. They share local functions, so they are concatenated into one script. */
const OPERATIONS = [
  "writes",
  "ledger",
  "product-event",
  "correction",
  "reservation",
  "expiry",
  "holds",
  "decisions",
  "probe",
];

/** Runs a batch of mutations. */
export function mutationScript(): Script {
  return load(...OPERATIONS, "run-batch");
}

/** The source of the operations without the part that runs them. */
export function operationsSource(): string {
  return sourceOf(OPERATIONS);
}

/** Reads products in one atomic step. */
export function readScript(): Script {
  return load("read-products");
}

/** Reads ledgers for a snapshot. */
export function loadScript(): Script {
  return load("load-products");
}

/** Manages the lease and the cursor of a bucket's outbox. */
export function outboxScript(): Script {
  return load("outbox");
}

/** Announces a publisher and counts the announced ones. */
export function announceScript(): Script {
  return load("announce-publisher");
}

/** Checks the data of a bucket, and raises its incarnation under another primary. */
export function fenceScript(): Script {
  return load("fence");
}

function load(...parts: string[]): Script {
  const source = sourceOf(parts);
  return { source, sha1: createHash("sha1").update(source).digest("hex") };
}

function sourceOf(parts: readonly string[]): string {
  return parts
    .map((part) => readFileSync(join(import.meta.dirname, "scripts", `${part}.lua`), "utf8"))
    .join("\n");
}
