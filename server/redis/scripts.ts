import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** A Lua script and the SHA-1 under which Redis caches it. */
export interface Script {
  readonly source: string;
  readonly sha1: string;
}

/** The parts of the mutation script that every batch needs. */
export const SHARED: readonly string[] = ["context", "writes"];

/**
 * The kinds of operations of the mutation script, each with the parts that its operations need. The operations of a batch are
 * mostly of one kind, or of two.
 */
export const KINDS: readonly (readonly string[])[] = [
  ["ledger", "new-product", "product-event"],
  ["ledger", "operation-record", "correction"],
  ["ledger", "operation-record", "record", "reservation-record", "expiry", "reservation"],
  ["ledger", "operation-record", "record", "hold-record", "holds"],
  ["operation-record", "record", "reservation-record", "expiry", "decisions"],
  ["record", "hold-record", "overdue"],
  ["probe"],
];

/** How a file defines an operation. */
const OPERATION = /^operations(?:\.|\[')(\w+)(?:'\])? = function/gm;

/** Runs a batch of mutations. */
export function mutationScript(): Script {
  return scriptOf([sourceOf(["batch"]), operationsSource(), sourceOf(["run-batch"])]);
}

/**
 * The source of the operations, without the parts before and after it: `in_batch` names the operations that are needed, and
 * the table `operations` then has them.
 *
 * Redis keeps the compiled script, but creates all its functions anew at each call. So each kind is a block, which is skipped
 * unless the batch needs it. Its source is in a function, whose functions share what they refer to outside: Lua 5.1 searches a
 * list of all such variables otherwise, for each function that refers to one.
 */
export function operationsSource(): string {
  const blocks = KINDS.map((parts) => {
    const source = sourceOf(parts);
    const isNeeded = operationsIn(source).map((name) => `in_batch['${name}']`);
    return `if ${isNeeded.join(" or ")} then (function()\n${source}\nend)() end`;
  });
  return [sourceOf(SHARED), ...blocks].join("\n");
}

/** The names of the operations, sorted. */
export function operationNames(): string[] {
  return KINDS.flatMap((parts) => operationsIn(sourceOf(parts))).sort();
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

function load(part: string): Script {
  return scriptOf([sourceOf([part])]);
}

function scriptOf(sources: readonly string[]): Script {
  const source = sources.join("\n");
  return { source, sha1: createHash("sha1").update(source).digest("hex") };
}

function sourceOf(parts: readonly string[]): string {
  return parts
    .map((part) => readFileSync(join(import.meta.dirname, "scripts", `${part}.lua`), "utf8"))
    .join("\n");
}

function operationsIn(source: string): string[] {
  return [...source.matchAll(OPERATION)].map(([, name = ""]) => name);
}
