import { isDeepStrictEqual } from "node:util";
import { CORRECTIONS_NAMED_MAX } from "../../inventory/change-history.ts";
import { decodeReference } from "../reference-record.ts";
import { convertReference, convertReservation } from "./convert.ts";
import { firstLine } from "./inspect.ts";
import { isInPlace, type NamedKey, scanLedger, scanNode } from "./ledger-keys.ts";
import { numbersOf, readStream, readText, type TextRecord } from "./records.ts";
import type { Source } from "./source.ts";
import { Findings, HeldUnits, inGroups, Tally } from "./tally.ts";
import type { Target } from "./target.ts";

/** Keys that are compared at once, and histories, each of which may have thousands of changes. */
const KEYS_AT_ONCE = 500;
const HISTORIES_AT_ONCE = 25;

/** What both sides hold. What has expired at the source meanwhile is on neither side. */
export class Comparison {
  readonly source = new Tally();
  readonly target = new Tally();
  readonly differences = new Findings();
}

/** Compares every record of the source with its copy, and the copy with itself. */
export async function compare(source: Source, target: Target): Promise<Comparison> {
  const comparer = new Comparer(source, target);
  await comparer.run();
  return comparer.comparison;
}

class Comparer {
  readonly comparison = new Comparison();
  readonly #source: Source;
  readonly #target: Target;
  readonly #held = new HeldUnits();

  constructor(source: Source, target: Target) {
    this.#source = source;
    this.#target = target;
  }

  async run(): Promise<void> {
    const { differences } = this.comparison;
    const compareKey = async (key: NamedKey): Promise<void> => {
      try {
        await this.#compareKey(key);
      } catch (error) {
        differences.add(`key ${JSON.stringify(key.key)}: ${firstLine(error)}`);
      }
    };
    for await (const { named } of scanNode(this.#source.client, "{b*}:*")) {
      const histories = named.filter(({ kind }) => kind === "h");
      await inGroups(
        named.filter(({ kind }) => kind !== "h"),
        KEYS_AT_ONCE,
        compareKey,
      );
      await inGroups(histories, HISTORIES_AT_ONCE, compareKey);
    }
    await this.#compareCollections();
    await this.#checkPlaces();
    this.#held.report(differences);
  }

  async #compareKey(key: NamedKey): Promise<void> {
    switch (key.kind) {
      case "p":
        return this.#compareLedger(key);
      case "d":
        return this.#compareDetails(key);
      case "h":
        return this.#compareHistory(key);
      case "r":
        return this.#compareReservation(key);
      case "op":
        return this.#compareOperation(key);
      case "x":
        throw new Error("a hold of a Redis Cluster");
      case "ref":
        return this.#compareReference(key);
    }
  }

  async #compareLedger({ key, name }: NamedKey): Promise<void> {
    const { client, keys } = this.#target;
    const [expected, found, isListed] = await Promise.all([
      this.#source.client.hgetall(key),
      client.hgetall(keys.ledger(name)),
      client.sismember(keys.products(keys.bucketOf(name)), name),
    ]);
    this.comparison.source.addLedger(numbersOf(expected));
    this.#expect(`ledger of product ${JSON.stringify(name)}`, found, expected);
    this.#expect(`entry of product ${JSON.stringify(name)} in the set of products`, isListed, 1);
    const numbers = numbersOf(found);
    this.comparison.target.addLedger(numbers);
    this.#held.reserved(name, numbers.reserved);
  }

  async #compareDetails({ key, name }: NamedKey): Promise<void> {
    const expected = await readText(this.#source.client, key);
    const found = await readText(this.#target.client, this.#target.keys.details(name));
    this.#count("details", expected, found);
    this.#expect(`details of product ${JSON.stringify(name)}`, found?.text, expected?.text);
  }

  async #compareHistory({ key, name }: NamedKey): Promise<void> {
    const copies = readStream(this.#target.client, this.#target.keys.history(name));
    for await (const expected of readStream(this.#source.client, key)) {
      const { value: found = [] } = await copies.next();
      this.comparison.source.add("changes in histories", expected.length);
      this.comparison.target.add("changes in histories", found?.length ?? 0);
      this.#expect(`history of product ${JSON.stringify(name)}`, found, expected);
    }
  }

  async #compareReservation({ key, name }: NamedKey): Promise<void> {
    const { client, keys } = this.#target;
    const record = await readText(this.#source.client, key);
    if (record === undefined) {
      return;
    }
    const expected = convertReservation(name, record.text, this.#target);
    const found = await readText(client, keys.reservation(name));
    const what = `reservation ${JSON.stringify(name)}`;
    this.#expectText(what, found, { ...record, text: expected.text });
    this.#countReservation(this.comparison.source, name, record.text);
    if (found === undefined) {
      return;
    }
    this.#countReservation(this.comparison.target, name, found.text);
    const { state, lines, deadlineMs } = convertReservation(name, found.text, this.#target);
    for (const { productId, quantity } of state === "active" ? lines : []) {
      this.#held.held(productId, quantity);
    }
    for (const [bucket, hold] of expected.holds) {
      const copied = await readText(client, keys.hold(bucket, name));
      this.#expectText(`hold of ${what} in bucket ${bucket}`, copied, { ...record, text: hold });
    }
    const score = await client.zscore(keys.deadlines(keys.bucketOf(name)), name);
    this.#expect(`deadline of ${what}`, score === null ? undefined : Number(score), deadlineMs);
    this.comparison.target.add("deadlines", score === null ? 0 : 1);
  }

  #countReservation(tally: Tally, name: string, text: string): void {
    const { state, lines } = convertReservation(name, text, this.#target);
    tally.add(`reservations ${state}`);
    if (state === "active") {
      tally.add(
        "units held by reservations",
        lines.reduce((sum, { quantity }) => sum + quantity, 0),
      );
      if (tally === this.comparison.source) {
        tally.add("deadlines");
      }
    }
  }

  async #compareOperation(key: NamedKey): Promise<void> {
    const operation = await this.#source.operationOf(key);
    const expected = await readText(this.#source.client, key.key);
    if (operation?.ownerId === undefined || expected === undefined) {
      return;
    }
    const { kind, ownerId, id } = operation;
    const found = await readText(this.#target.client, this.#target.keys.operation(kind, ownerId, id));
    this.#count("operations", expected, found);
    this.#expectText(`operation ${JSON.stringify(key.key)}`, found, expected);
  }

  async #compareReference({ key, name }: NamedKey): Promise<void> {
    const record = await readText(this.#source.client, key);
    for (const [targetKey, changes] of record === undefined
      ? []
      : convertReference(name, record.text, this.#target.keys)) {
      const found = await readText(this.#target.client, targetKey);
      const named = found === undefined ? [] : decodeReference(found.text);
      // A full record has dropped the oldest of what it was merged from.
      const isFull = named.length >= CORRECTIONS_NAMED_MAX;
      const copied = changes.filter(
        (change) => isFull || named.some((each) => isDeepStrictEqual(each, change)),
      );
      this.comparison.source.add("changes named by references", changes.length);
      this.comparison.target.add("changes named by references", copied.length);
      this.#expect(`reference ${JSON.stringify(targetKey)}`, [found !== undefined, copied], [true, changes]);
    }
  }

  async #compareCollections(): Promise<void> {
    const expected = await this.#source.client.hgetall(this.#source.keys.collections());
    const found = await this.#target.client.hgetall(this.#target.keys.collections());
    this.comparison.source.add("collections", Object.keys(expected).length);
    this.comparison.target.add("collections", Object.keys(found).length);
    this.#expect("collections", found, expected);
  }

  /** Checks that every key of the target is in the bucket that its name belongs to, and that there are no more than copied. */
  async #checkPlaces(): Promise<void> {
    const { client, keys } = this.#target;
    const { differences, target } = this.comparison;
    let products = 0n;
    for await (const { named, unknown } of scanLedger(client)) {
      for (const key of named) {
        products += key.kind === "p" ? 1n : 0n;
        if (!isInPlace(key, keys)) {
          differences.add(`key ${JSON.stringify(key.key)}: another bucket belongs to this name`);
        }
      }
      for (const key of unknown) {
        differences.add(`key ${JSON.stringify(key)}: not a key of the ledger`);
      }
    }
    this.#expect("number of ledgers", products, target.get("products"));
  }

  #count(
    what: "details" | "operations",
    expected: TextRecord | undefined,
    found: TextRecord | undefined,
  ): void {
    this.comparison.source.add(what, expected === undefined ? 0 : 1);
    this.comparison.target.add(what, found === undefined ? 0 : 1);
  }

  #expectText(what: string, found: TextRecord | undefined, expected: TextRecord): void {
    this.#expect(what, found?.text, expected.text);
    this.#expect(`expiry of ${what}`, found?.ttlMs !== undefined, expected.ttlMs !== undefined);
  }

  #expect(what: string, found: unknown, expected: unknown): void {
    if (!isDeepStrictEqual(found, expected)) {
      this.comparison.differences.add(
        `${what}: the target has ${shown(found)}, the source ${shown(expected)}`,
      );
    }
  }
}

const SHOWN_CHARACTERS_MAX = 200;

function shown(value: unknown): string {
  const text = typeof value === "bigint" ? String(value) : (JSON.stringify(value) ?? "nothing");
  return text.length > SHOWN_CHARACTERS_MAX ? `${text.slice(0, SHOWN_CHARACTERS_MAX)}…` : text;
}
