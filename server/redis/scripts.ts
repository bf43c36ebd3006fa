import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** A Lua script and the SHA-1 under which Redis caches it. */
export interface Script {
  readonly source: string;
  readonly sha1: string;
}

/** Runs a batch of mutations. Its parts share local functions, so they are concatenated into one script. */
export function mutationScript(): Script {
  return load(
    "writes",
    "ledger",
    "product-event",
    "correction",
    "reservation",
    "expiry",
    "probe",
    "run-batch",
  );
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

/** Checks the data of every bucket, and raises its incarnation under another primary. */
export function fenceScript(): Script {
  return load("fence");
}

function load(...parts: string[]): Script {
  const source = parts
    .map((part) => readFileSync(join(import.meta.dirname, "scripts", `${part}.lua`), "utf8"))
    .join("\n");
  return { source, sha1: createHash("sha1").update(source).digest("hex") };
}
