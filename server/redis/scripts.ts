import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** A Lua script with the SHA-1 under which Redis caches it. */
export interface Script {
  readonly source: string;
  readonly sha1: string;
}

/** Runs a batch of mutations. Its parts share one scope, which is why it is one script and not many. */
export function mutationScript(): Script {
  return load("ledger", "product-event", "correction", "reservation", "run-batch");
}

/** Reads many products at one moment. */
export function readScript(): Script {
  return load("read-products");
}

/** Reads many ledgers for the full picture. */
export function loadScript(): Script {
  return load("load-products");
}

/** Leases a bucket's outbox, and reads and moves its cursor. */
export function outboxScript(): Script {
  return load("outbox");
}

/** Says that a publisher is there, and counts those that are. */
export function announceScript(): Script {
  return load("announce-publisher");
}

function load(...parts: string[]): Script {
  const source = parts
    .map((part) => readFileSync(join(import.meta.dirname, "scripts", `${part}.lua`), "utf8"))
    .join("\n");
  return { source, sha1: createHash("sha1").update(source).digest("hex") };
}
