import { EXPIRY_ACTOR } from "../../server/inventory/actor.ts";
import type { StockChange } from "../../server/inventory/ledger.ts";
import { applyUpsert } from "../../server/inventory/product-event.ts";
import type { Effect, Message, Reply } from "../../server/inventory/sharded/messages.ts";
import { Bucket } from "../../server/memory/bucket.ts";
import type { Decisions } from "../../server/memory/decisions.ts";
import type { HoldRecord } from "../../server/memory/holds.ts";
import { type OperationKey, Operations } from "../../server/memory/operations.ts";
import { type ProductRecord, Products } from "../../server/memory/products.ts";

/** A seller's declaration: the units supplied in total. */
export interface Declare {
  readonly step: "declare";
  readonly bucket: number;
  readonly productId: string;
  readonly declared: number;
}

/** A sweep of the deadlines of one bucket. */
export interface Expire {
  readonly step: "expire";
  readonly bucket: number;
}

/** What changes a bucket in one atomic step. */
export type Input = Message | Declare | Expire;

export interface Expired {
  readonly status: "swept";
  readonly expired: readonly { readonly reservationId: string; readonly effects: readonly Effect[] }[];
}

export type Result = Reply | Expired;

/** Runs an input on a bucket. A seeded fault has one of its own. */
export type Take = (bucket: Bucket, message: Message) => Reply;

export type Entry = Decisions["entries"] extends Map<string, infer E> ? E : never;
type ProductState = Pick<ProductRecord, "registers" | "adjusted" | "sold" | "reserved" | "safety">;

/** All that decides how a bucket behaves from now on. Histories and versions only grow, so they are left out. */
export interface Snapshot {
  readonly products: readonly (readonly [string, ProductState])[];
  readonly entries: readonly (readonly [string, Entry])[];
  readonly owed: readonly string[];
  readonly records: readonly (readonly [string, HoldRecord])[];
  readonly undecided: readonly string[];
  readonly operations: readonly (readonly [OperationKey, string])[];
}

/** What one step did. */
export interface Step {
  readonly after: Snapshot;
  readonly result: Result;
  readonly changes: readonly StockChange[];
}

/** Nothing is forgotten within a schedule: retention is the protocol's assumption about the longest delay of a message. */
const RETENTION_MS = Number.MAX_SAFE_INTEGER;

/** Runs one step on a bucket that is in the state of `before`. */
export function stepFrom(before: Snapshot, input: Input, nowMs: number, take: Take): Step {
  const changes: StockChange[] = [];
  const now = () => nowMs;
  const products = new Products(now, 1, (change) => changes.push(change));
  for (const [productId, state] of before.products) {
    Object.assign(products.findOrCreate(productId), state);
  }
  const operations = new RecordedOperations(now, RETENTION_MS);
  for (const [key, fingerprint] of before.operations) {
    operations.remember(key, fingerprint, []);
  }
  const bucket = new Bucket(products, operations, now, RETENTION_MS);
  fill(bucket.decisions.entries, before.entries);
  fill(bucket.holds.records, before.records);
  fill(
    bucket.decisions.owed,
    before.owed.map((id) => [id, nowMs] as const),
  );
  fill(
    bucket.holds.undecided,
    before.undecided.map((id) => [id, nowMs] as const),
  );
  const result = run(bucket, products, input, take);
  const after: Snapshot = {
    products: sorted(
      [...products.all()].map(({ productId, registers, adjusted, sold, reserved, safety }) => [
        productId,
        { registers, adjusted, sold, reserved, safety },
      ]),
    ),
    entries: sorted([...bucket.decisions.entries]),
    owed: [...bucket.decisions.owed.keys()].sort(),
    records: sorted([...bucket.holds.records].map(([id, record]) => [id, withSortedTargets(record)])),
    undecided: [...bucket.holds.undecided.keys()].sort(),
    operations: operations.done,
  };
  return { after, result, changes };
}

function run(bucket: Bucket, products: Products, input: Input, take: Take): Result {
  if (input.step === "expire") {
    const expired = bucket.decisions.expireDue(Number.POSITIVE_INFINITY, EXPIRY_ACTOR);
    return {
      status: "swept",
      expired: expired.map(({ record, effects }) => ({ reservationId: record.reservationId, effects })),
    };
  }
  if (input.step === "declare") {
    const product = products.findOrCreate(input.productId);
    const event = { details: undefined, declared: input.declared, delivery: undefined };
    const { registers } = applyUpsert(
      product.registers,
      event,
      (product.registers.declareTimeMicros ?? 0) + 1,
    );
    products.change(product, { cause: "declared" }, () => {
      product.registers = registers;
    });
    return { status: "ok" };
  }
  return take(bucket, input);
}

class RecordedOperations extends Operations {
  readonly done: (readonly [OperationKey, string])[] = [];

  override remember(...[key, fingerprint, changes]: Parameters<Operations["remember"]>): void {
    super.remember(key, fingerprint, changes);
    this.done.push([key, fingerprint]);
  }
}

function fill<V>(map: Map<string, V>, entries: readonly (readonly [string, V])[]): void {
  for (const [id, value] of structuredClone(entries)) {
    map.set(id, value);
  }
}

function sorted<V>(entries: (readonly [string, V])[]): (readonly [string, V])[] {
  return entries.sort(([a], [b]) => (a < b ? -1 : 1));
}

function withSortedTargets(record: HoldRecord): HoldRecord {
  return { ...record, targets: [...record.targets].sort((a, b) => (a.productId < b.productId ? -1 : 1)) };
}
