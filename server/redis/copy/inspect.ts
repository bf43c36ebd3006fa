import { convertReference, convertReservation } from "./convert.ts";
import { isInPlace, type NamedKey, scanNode } from "./ledger-keys.ts";
import { numbersOf, readText } from "./records.ts";
import type { Source } from "./source.ts";
import { Findings, HeldUnits, inGroups, Tally } from "./tally.ts";

/** Keys that are read at once. */
const KEYS_AT_ONCE = 500;

/** What the source holds. */
export interface Inspection {
  readonly tally: Tally;
  /** Records that cannot be copied, or that contradict each other. */
  readonly faults: Findings;
  /** Operations without a known owner, which are not copied. */
  readonly unowned: { count: number; adjust: number; return: number };
  /** Keys that do not belong to the ledger, which are not copied. */
  foreign: number;
}

/** Reads the whole source and checks it. Writes nothing. */
export async function inspect(source: Source): Promise<Inspection> {
  const inspection: Inspection = {
    tally: new Tally(),
    faults: new Findings(),
    unowned: { count: 0, adjust: 0, return: 0 },
    foreign: 0,
  };
  const held = new HeldUnits();
  const { faults } = inspection;
  const check = async (key: NamedKey): Promise<void> => {
    try {
      if (!isInPlace(key, source.keys)) {
        faults.add(`key ${JSON.stringify(key.key)}: another bucket belongs to this name`);
      } else {
        await inspectKey(key, source, inspection, held);
      }
    } catch (error) {
      faults.add(`key ${JSON.stringify(key.key)}: ${firstLine(error)}`);
    }
  };
  for await (const { named, unknown, foreign } of scanNode(source.client)) {
    inspection.foreign += foreign;
    for (const key of unknown) {
      faults.add(`key ${JSON.stringify(key)}: not a key of layout ${source.layoutVersion}`);
    }
    await inGroups(named, KEYS_AT_ONCE, check);
  }
  await countOwners(source, inspection);
  inspection.tally.add("collections", await source.client.hlen(source.keys.collections()));
  held.report(faults);
  return inspection;
}

async function inspectKey(
  key: NamedKey,
  source: Source,
  { tally }: Inspection,
  held: HeldUnits,
): Promise<void> {
  const { client, keys, ownersOfReturns } = source;
  switch (key.kind) {
    case "p": {
      const numbers = numbersOf(await client.hgetall(key.key));
      tally.addLedger(numbers);
      held.reserved(key.name, numbers.reserved);
      return;
    }
    case "d":
      tally.add("details", (await client.get(key.key)) === null ? 0 : 1);
      return;
    case "h":
      tally.add("changes in histories", await client.xlen(key.key));
      return;
    case "r": {
      const record = await readText(client, key.key);
      if (record !== undefined) {
        const { state, lines, returnIds } = convertReservation(key.name, record.text, source);
        tally.add(`reservations ${state}`);
        for (const returnId of returnIds) {
          ownersOfReturns.set(returnId, key.name);
        }
        for (const { productId, quantity } of state === "active" ? lines : []) {
          tally.add("units held by reservations", quantity);
          held.held(productId, quantity);
        }
        tally.add("deadlines", state === "active" ? 1 : 0);
      }
      return;
    }
    case "x":
      throw new Error("a hold of a Redis Cluster, whose ledger cannot be copied");
    case "op":
      // After the reservations, which are the owners of returns.
      return;
    case "ref": {
      const record = await readText(client, key.key);
      if (record !== undefined) {
        for (const changes of convertReference(key.name, record.text, keys).values()) {
          tally.add("changes named by references", changes.length);
        }
      }
      return;
    }
  }
}

/** Counts the operations whose owner is known, and those of which it is not. */
async function countOwners(source: Source, { tally, faults, unowned }: Inspection): Promise<void> {
  for await (const { named } of scanNode(source.client, "{b*}:op:*")) {
    await inGroups(named, KEYS_AT_ONCE, async (key) => {
      const operation = await source.operationOf(key);
      if (operation === undefined) {
        faults.add(`key ${JSON.stringify(key.key)}: not a key of layout ${source.layoutVersion}`);
      } else if (operation.ownerId === undefined) {
        unowned[operation.kind] += 1;
      } else {
        tally.add("operations");
      }
    });
  }
}

export function firstLine(error: unknown): string {
  const [line = ""] = (error instanceof Error ? error.message : String(error)).trim().split("\n");
  return line;
}
