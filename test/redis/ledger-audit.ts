import type { Redis } from "ioredis";
import { decodeChange } from "../../server/redis/reply.ts";

interface RawReservation {
  readonly state: string;
  readonly lines?: readonly (readonly [string, number, number])[];
  readonly left?: readonly number[];
}

/** The keys of the service with their contents, except streams and markers. Equal texts mean equal records. */
export async function dumpRecords(client: Redis): Promise<string> {
  const dump: Record<string, unknown> = {};
  for (const key of (await client.keys("{b*}:*")).sort()) {
    if (!/:(h:|changes$|marker$|outbox$)/.test(key)) {
      dump[key] = await contentOf(client, key);
    }
  }
  return JSON.stringify(dump, undefined, 1);
}

async function contentOf(client: Redis, key: string): Promise<unknown> {
  switch (await client.type(key)) {
    case "hash":
      return Object.entries(await client.hgetall(key)).sort();
    case "set":
      return (await client.smembers(key)).sort();
    case "zset":
      return await client.zrange(key, "0", "-1", "WITHSCORES");
    case "string":
      return await client.get(key);
    default:
      return undefined;
  }
}

/**
 * Reads ledgers, reservations and streams directly, and lists inconsistencies: units that no reservation accounts for,
 * active reservations without a deadline, and ledgers whose newest version the change stream does not have.
 */
export async function auditLedgers(client: Redis): Promise<string[]> {
  const faults: string[] = [];
  const reserved = new Map<string, number>();
  const sold = new Map<string, number>();
  const add = (units: Map<string, number>, productId: string, n: number) =>
    units.set(productId, (units.get(productId) ?? 0) + n);
  for (const key of await client.keys("{b*}:r:*")) {
    const record: RawReservation = JSON.parse((await client.get(key)) ?? "");
    const { state, lines = [], left = [] } = record;
    const [, bucket = "", id = ""] = /^(\{b\d+\}):r:(.*)$/s.exec(key) ?? [];
    const isListed = (await client.zscore(`${bucket}:deadlines`, id)) !== null;
    if (isListed !== (state === "active")) {
      faults.push(`${id} is ${state} and ${isListed ? "has" : "has no"} deadline`);
    }
    for (const [index, [productId, , quantity]] of lines.entries()) {
      if (state === "active") add(reserved, productId, quantity);
      if (state === "committed") add(sold, productId, left[index] ?? 0);
    }
  }
  const newest = new Map<string, number>();
  for (const stream of await client.keys("{b*}:changes")) {
    for (const entry of await client.xrange(stream, "-", "+")) {
      const { ledger } = decodeChange(entry);
      newest.set(ledger.productId, ledger.version);
    }
  }
  for (const key of await client.keys("{b*}:p:*")) {
    const productId = key.replace(/^\{b\d+\}:p:/, "");
    const { H = "", S = "", V = "" } = await client.hgetall(key);
    const expected = [reserved.get(productId) ?? 0, sold.get(productId) ?? 0, newest.get(productId) ?? 0];
    const found = [H, S, V].map(Number);
    if (expected.join() !== found.join()) {
      faults.push(
        `${productId} has reserved, sold, version ${found}; reservations and stream say ${expected}`,
      );
    }
  }
  return faults;
}
