import { available, type Ledger, onHand, type StockChange } from "../../server/inventory/ledger.ts";
import type { Reservation } from "../../server/inventory/reservation.ts";
import type { Target } from "../../server/inventory/sharded/messages.ts";
import type { HoldRecord } from "../../server/memory/holds.ts";
import type { ReservationRecord } from "../../server/memory/reservation-record.ts";
import type { Entry, Input, Snapshot, Step } from "./buckets.ts";
import type { Call } from "./explorer.ts";
import type { Answer } from "./scripts.ts";

/** A broken invariant. */
export class Violation extends Error {}

/** A snapshot with its maps. */
export interface BucketState {
  readonly snapshot: Snapshot;
  readonly entries: ReadonlyMap<string, Entry>;
  readonly records: ReadonlyMap<string, HoldRecord>;
  readonly products: ReadonlyMap<string, Ledger>;
}

export function bucketStateOf(snapshot: Snapshot): BucketState {
  return {
    snapshot,
    entries: new Map(snapshot.entries),
    records: new Map(snapshot.records),
    products: new Map(
      snapshot.products.map(([productId, { registers, ...state }]) => [
        productId,
        { ...state, ...registers, productId, version: 0, deleted: false },
      ]),
    ),
  };
}

/** Of one step: what it may do to ledgers, their histories and records. */
export function checkStep(before: BucketState, input: Input, { after, changes, result }: Step): void {
  const state = bucketStateOf(after);
  checkBucket(state);
  checkHistory(before, state, input, changes);
  for (const [id, ledger] of state.products) {
    const held = ledger.reserved - (before.products.get(id)?.reserved ?? 0);
    if (held > 0 && onHand(ledger) - ledger.reserved - ledger.safety < 0) {
      throw new Violation(`${held} of ${id} are held, of which ${available(ledger) + held} are available`);
    }
    if (held > 0 && input.step === "hold" && result.status !== "ok") {
      throw new Violation(`A hold that was refused holds ${id}`);
    }
  }
  for (const [id, entry] of before.entries) {
    checkDecisions(id, entry, state.entries.get(id));
  }
}

/** Of one bucket: ledgers and holds agree. */
function checkBucket({ snapshot, records, products }: BucketState): void {
  for (const [id, { reserved, sold }] of products) {
    const targets = [...records.values()].flatMap((record) =>
      record.targets.filter((each) => each.productId === id),
    );
    const [heldSum, soldSum] = [sum(targets, "held"), sum(targets, "sold")];
    if (heldSum !== reserved || soldSum !== sold) {
      throw new Violation(
        `${id} has ${reserved} reserved and ${sold} sold, its holds ${heldSum} and ${soldSum}`,
      );
    }
    if (targets.some((target) => target.held < 0 || target.sold < 0)) {
      throw new Violation(`A hold of ${id} is negative`);
    }
  }
  for (const id of snapshot.undecided) {
    if (!records.has(id)) {
      throw new Violation(`${id} is undecided, but has no hold`);
    }
  }
}

/** The changes of a step say what it did, each with a cause that fits. */
function checkHistory(
  before: BucketState,
  after: BucketState,
  input: Input,
  changes: readonly StockChange[],
): void {
  const ledgers = new Map(before.products);
  for (const { ledger, cause, referenceId } of changes) {
    const { reserved = 0, sold = 0 } = ledgers.get(ledger.productId) ?? {};
    const [held, more] = [ledger.reserved - reserved, ledger.sold - sold];
    const fits = {
      reserved: held > 0 && more === 0,
      released: held < 0 && more === 0,
      expired: held < 0 && more === 0,
      committed: more > 0 && held + more <= 0,
      returned: held === 0 && more < 0,
      declared: held === 0 && more === 0,
    }[cause as string];
    if (fits !== true) {
      throw new Violation(`${cause} changed ${ledger.productId} by ${held} reserved and ${more} sold`);
    }
    if ("reservationId" in input && cause !== "returned" && referenceId !== input.reservationId) {
      throw new Violation(`${cause} of ${ledger.productId} names ${referenceId}`);
    }
    ledgers.set(ledger.productId, ledger);
  }
  for (const [id, { reserved, sold, declared }] of after.products) {
    const told = ledgers.get(id);
    if (told?.reserved !== reserved || told.sold !== sold || told.declared !== declared) {
      throw new Violation(`The history of ${id} does not explain its ledger`);
    }
  }
}

const MAY_BECOME: Record<string, readonly string[]> = {
  active: ["active", "committed", "released", "expired"],
  expired: ["expired", "committed", "released"],
  committed: ["committed"],
  released: ["released"],
};

/** Decisions are never taken back. */
function checkDecisions(id: string, before: Entry, after: Entry | undefined): void {
  const [was, is] = [before.record, after?.record];
  if (after === undefined || after.refused < before.refused) {
    throw new Violation(`The refusal of epoch ${before.refused} of ${id} is forgotten`);
  }
  if (was === undefined) {
    if (is !== undefined && is.fingerprint !== undefined && is.epoch <= before.refused) {
      throw new Violation(`Epoch ${is.epoch} of ${id} is decided after it was refused`);
    }
    return;
  }
  if (is === undefined || !(MAY_BECOME[was.state] ?? []).includes(is.state)) {
    throw new Violation(`${id} was ${was.state} and is ${is?.state ?? "absent"}`);
  }
  if (is.revision < was.revision || is.epoch < was.epoch || is.fingerprint !== was.fingerprint) {
    throw new Violation(`A decision about ${id} is taken back`);
  }
  if (was.state === "committed" && String(is.sold) !== String(was.sold)) {
    throw new Violation(`${id} sold ${was.sold} and now ${is.sold}`);
  }
}

/** Of all buckets together: what is decided is held, and what is not yet applied is known at home. */
export function checkBuckets(buckets: readonly BucketState[], bucketOf: (id: string) => number): void {
  const holdOf = (record: ReservationRecord, productId: string) => {
    const hold = buckets[bucketOf(productId)]?.records.get(record.reservationId);
    return { hold, target: hold?.targets.find((target) => target.productId === productId) };
  };
  for (const { entries } of buckets) {
    for (const { record, effects } of entries.values()) {
      for (const [index, { productId, quantity }] of (record?.lines ?? []).entries()) {
        if (record === undefined) {
          continue;
        }
        const { hold, target } = holdOf(record, productId);
        const { held, sold } = target ?? { held: 0, sold: 0 };
        const name = `${record.reservationId} is ${record.state}`;
        if (hold === undefined) {
          throw new Violation(`${name}, but has no hold of ${productId}`);
        }
        if (record.state === "active") {
          const isOfEpoch = hold.epoch === record.epoch && hold.fingerprint === record.attemptFingerprint;
          if (!isOfEpoch || hold.isCancelled || held !== quantity || sold !== 0) {
            throw new Violation(
              `${name} at epoch ${record.epoch}, but holds ${held} of ${productId} at epoch ${hold.epoch}`,
            );
          }
        }
        if (record.state === "committed" && held + sold < (record.left[index] ?? 0)) {
          throw new Violation(`${name}, but ${held} of ${productId} are held and ${sold} sold`);
        }
        if (record.state !== "committed" && sold !== 0) {
          throw new Violation(`${name}, but ${sold} of ${productId} are sold`);
        }
        const missing = record.revision - Math.max(hold.revision, 0);
        const owed = effects.filter(({ revision }) => revision > hold.revision);
        if (missing > owed.length) {
          throw new Violation(`${name}, but ${missing - owed.length} effects on ${productId} are forgotten`);
        }
      }
    }
  }
  for (const { snapshot, records } of buckets) {
    for (const [id, hold] of records) {
      const entry = buckets[bucketOf(id)]?.entries.get(id);
      const isActive = entry?.record?.state === "active" && entry.record.epoch === hold.epoch;
      const isOwed = entry?.effects.some(({ revision }) => revision > hold.revision);
      if (sum(hold.targets, "held") > 0 && !snapshot.undecided.includes(id) && !isActive && !isOwed) {
        throw new Violation(`Nothing will give back what ${id} holds`);
      }
    }
  }
}

/** After all repairs: holds are what the records say, and nothing is left to do. */
export function checkRest(buckets: readonly BucketState[], bucketOf: (id: string) => number): void {
  for (const { snapshot, records } of buckets) {
    const open = [...snapshot.undecided, ...snapshot.owed];
    if (open.length > 0) {
      throw new Violation(`After all repairs ${open} remains open`);
    }
    for (const [id, { targets }] of records) {
      const record = buckets[bucketOf(id)]?.entries.get(id)?.record;
      for (const { productId, held, sold } of targets) {
        const index = record?.lines.findIndex((line) => line.productId === productId) ?? -1;
        const heldThen = record?.state === "active" ? (record.lines[index]?.quantity ?? 0) : 0;
        const soldThen = record?.state === "committed" ? (record.left[index] ?? 0) : 0;
        if (held !== heldThen || sold !== soldThen) {
          throw new Violation(
            `After all repairs ${id} (${record?.state ?? "unknown"}) has ${held} of ${productId} held and ${sold} sold`,
          );
        }
      }
    }
  }
}

function sum(targets: readonly Target[], field: "held" | "sold"): number {
  return targets.reduce((total, target) => total + target[field], 0);
}

interface Answered {
  readonly call: Call;
  readonly answer: Answer | undefined;
}

/** Of the answers: each is true of the record, and what was refused did not happen. */
export function checkAnswers(calls: readonly Answered[], entryOf: (id: string) => Entry | undefined): void {
  for (const id of new Set(calls.map(({ call }) => call.reservationId))) {
    const record = entryOf(id)?.record;
    const ofId = calls.filter(({ call }) => call.reservationId === id);
    for (const { call, answer } of ofId) {
      if (answer && "reservation" in answer) {
        checkAnswer(call, answer.reservation, record);
      }
    }
    if (record !== undefined && record.fingerprint !== undefined) {
      checkExplained(record, "reserve", ofId);
      if (record.state === "committed") {
        checkExplained(record, "commit", ofId);
      }
    }
  }
}

function checkAnswer(call: Call, { state, lines }: Reservation, record: ReservationRecord | undefined): void {
  const isTrue =
    record !== undefined &&
    (MAY_BECOME[state] ?? []).includes(record.state) &&
    JSON.stringify(record.lines) === JSON.stringify(lines) &&
    (call.kind === "release" || call.explains(record)) &&
    (call.kind !== "commit" || state === "committed") &&
    (call.kind !== "release" || state === "released");
  if (!isTrue) {
    throw new Violation(`${call.name} was answered ${state}, but the record is ${record?.state ?? "absent"}`);
  }
}

/** The record shows a decision, so that a call that could make it was not refused. */
function checkExplained(record: ReservationRecord, kind: Call["kind"], calls: readonly Answered[]): void {
  const isExplained = calls.some(
    ({ call, answer }) => call.kind === kind && call.explains(record) && !isRefusal(answer),
  );
  if (!isExplained) {
    throw new Violation(
      `${record.reservationId} is ${record.state}, but each ${kind} that may have done it was refused`,
    );
  }
}

function isRefusal(answer: Answer | undefined): boolean {
  return answer !== undefined && "code" in answer && answer.code !== "STORE_UNAVAILABLE";
}
