import assert from "node:assert/strict";
import { InventoryError } from "../../server/inventory/errors.ts";
import type { ChangeCause, Ledger, StockChange } from "../../server/inventory/ledger.ts";
import type { Reservation } from "../../server/inventory/reservation.ts";
import type { InventoryStore } from "../../server/inventory/store.ts";

const CHANGES_MAX = 100;
const PAGE = 50;

/** The numbers of the ledger that a change of each cause may modify, and the direction; 0 is either. */
const MOVES: Readonly<Record<ChangeCause, Partial<Record<NumberName, -1 | 0 | 1>>>> = {
  declared: { declared: 0 },
  deleted: {},
  details: {},
  counted: { adjusted: 0 },
  adjusted: { adjusted: 0 },
  safety: { safety: 0 },
  reserved: { reserved: 1 },
  committed: { reserved: -1, sold: 1 },
  released: { reserved: -1 },
  expired: { reserved: -1 },
  returned: { sold: -1 },
};
const NUMBER_NAMES = ["declared", "adjusted", "sold", "reserved", "safety"] as const;
type NumberName = (typeof NUMBER_NAMES)[number];

/** The states that a reservation may reach from each state, in any number of steps. */
const LATER: Readonly<Record<Reservation["state"], readonly Reservation["state"][]>> = {
  active: ["active", "committed", "released", "expired"],
  expired: ["expired", "committed", "released"],
  committed: ["committed"],
  released: ["released"],
};

/** How a store makes reservations. */
export interface AuditRules {
  /**
   * Whether the holds of a reservation are taken bucket by bucket, as in a Cluster: then attempts that were refused may precede
   * it in the history of a product.
   */
  readonly holdsByBucket?: boolean;
}

/** Checks products and reservations while no calls are pending, and keeps the last seen state. */
export class Auditor {
  readonly #store: InventoryStore;
  readonly #productIds: readonly string[];
  readonly #reservationIds: readonly string[];
  readonly #rules: AuditRules;
  readonly #seen = new Map<string, Reservation>();
  readonly #versions = new Map<string, number>();

  constructor(
    store: InventoryStore,
    productIds: readonly string[],
    reservationIds: readonly string[],
    rules: AuditRules = {},
  ) {
    this.#store = store;
    this.#productIds = productIds;
    this.#reservationIds = reservationIds;
    this.#rules = rules;
  }

  /** Throws if a rule of the ledger, of the changes or of the reservations is violated. */
  async check(): Promise<void> {
    const found = await Promise.all(this.#reservationIds.map((id) => find(this.#store.reservations.get(id))));
    const reservations = found.filter((reservation) => reservation !== undefined);
    for (const reservation of reservations) {
      this.#checkReservation(reservation);
    }
    await this.#checkList(reservations);
    await Promise.all(this.#productIds.map((id) => this.#checkProduct(id, reservations)));
  }

  #checkReservation(now: Reservation): void {
    const { reservationId, state, lines, committedLines } = now;
    const before = this.#seen.get(reservationId);
    this.#seen.set(reservationId, now);
    const where = `reservation ${reservationId}`;
    assert.equal(now.endTimeMs === undefined, state === "active", `${where}: end of ${state}`);
    assert.ok(!now.revived || state === "committed", `${where}: revived and ${state}`);
    assert.ok(committedLines.length === 0 || state === "committed", `${where}: sold lines and ${state}`);
    for (const [index, { quantity }] of committedLines.entries()) {
      assert.ok(quantity >= 0 && quantity <= (lines[index]?.quantity ?? 0), `${where}: sold ${quantity}`);
    }
    if (before === undefined) {
      return;
    }
    assert.ok(LATER[before.state].includes(state), `${where} went from ${before.state} to ${state}`);
    assert.deepEqual(lines, before.lines, where);
    assert.equal(now.createTimeMs, before.createTimeMs, where);
    if (before.state === state && state !== "active") {
      assert.equal(now.revived, before.revived, where);
      assert.equal(now.endTimeMs, before.endTimeMs, `${where}: its end moved`);
    }
    if (before.state === "expired" && state === "committed") {
      assert.equal(now.revived, true, `${where} was committed after it had expired`);
    }
    if (before.state === "committed") {
      for (const { productId } of lines) {
        assert.ok(soldOf(now, productId) <= soldOf(before, productId), `${where}: more is sold than before`);
      }
    }
  }

  async #checkList(reservations: readonly Reservation[]): Promise<void> {
    const listed: string[] = [];
    let after: { expireTimeMs: number; reservationId: string } | undefined;
    for (;;) {
      const page = await this.#store.reservations.list({ limit: PAGE, after, expireBeforeMs: undefined });
      const last = page.at(-1);
      if (last === undefined) {
        break;
      }
      const [first] = page;
      assert.ok(first && !listed.includes(first.reservationId), "a page of the list comes again");
      listed.push(...page.map((one) => one.reservationId));
      after = { expireTimeMs: last.expireTimeMs ?? 0, reservationId: last.reservationId };
    }
    const active = reservations.filter(({ state }) => state === "active").map((one) => one.reservationId);
    const ours = new Set(this.#reservationIds);
    assert.deepEqual(listed.filter((id) => ours.has(id)).sort(), active.sort(), "the list of active ones");
  }

  async #checkProduct(productId: string, reservations: readonly Reservation[]): Promise<void> {
    const ledger = await find(this.#store.getLedger(productId));
    const [stock] = await this.#store.batchGetStock([productId]);
    if (ledger === undefined) {
      assert.equal(stock, undefined);
      assert.ok(!this.#versions.has(productId), `product ${productId} was forgotten`);
      return;
    }
    const where = `product ${productId}`;
    const ofProduct = reservations.flatMap((reservation) =>
      reservation.lines.filter((line) => line.productId === productId).map((line) => ({ reservation, line })),
    );
    const active = ofProduct.filter(({ reservation }) => reservation.state === "active");
    assert.equal(ledger.reserved, sum(active.map(({ line }) => line.quantity)), `${where}: reserved`);
    const sold = ofProduct.map(({ reservation }) => soldOf(reservation, productId));
    assert.equal(ledger.sold, sum(sold), `${where}: sold`);
    assert.equal(stock === undefined, ledger.deleted, `${where}: visible`);
    if (stock !== undefined) {
      assert.equal(stock.available, Math.max(0, uncovered(ledger)), `${where}: available`);
      assert.equal(stock.version, ledger.version, where);
    }
    const versionBefore = this.#versions.get(productId) ?? 0;
    assert.ok(ledger.version >= versionBefore, `${where}: its version fell`);
    this.#versions.set(productId, ledger.version);
    const page = { limit: CHANGES_MAX, beforeVersion: undefined };
    const changes = (await this.#store.listChanges(productId, page)).reverse();
    checkChanges(where, ledger, changes);
    if (changes.length === ledger.version) {
      for (const { reservation, line } of ofProduct) {
        const check = this.#rules.holdsByBucket ? checkSums : checkMoves;
        check(where, reservation, line.quantity, changes);
      }
    }
  }
}

function checkChanges(where: string, ledger: Ledger, changes: readonly StockChange[]): void {
  const first = ledger.version - changes.length + 1;
  assert.equal(changes.length, Math.min(ledger.version, CHANGES_MAX), `${where}: changes kept`);
  assert.deepEqual(
    changes.map((change) => change.ledger.version),
    changes.map((_, index) => first + index),
    `${where}: versions have a gap`,
  );
  assert.deepEqual(changes.at(-1)?.ledger, ledger, `${where}: the newest change is not the ledger`);
  for (const [index, change] of changes.entries()) {
    const before = changes[index - 1]?.ledger ?? (first === 1 ? emptyLedger(ledger) : undefined);
    if (before !== undefined) {
      checkChange(`${where}, version ${change.ledger.version}, ${change.cause}`, before, change);
    }
  }
}

function checkChange(where: string, before: Ledger, { cause, delta, ledger }: StockChange): void {
  assert.equal(delta, Math.max(0, uncovered(ledger)) - Math.max(0, uncovered(before)), `${where}: delta`);
  assert.ok(ledger.reserved >= 0 && ledger.sold >= 0 && ledger.safety >= 0, `${where}: below 0`);
  for (const name of NUMBER_NAMES) {
    const moved = ledger[name] - before[name];
    const way = MOVES[cause][name];
    const isAllowed = moved === 0 || way === 0 || (way !== undefined && Math.sign(moved) === way);
    assert.ok(isAllowed, `${where}: ${name} moved by ${moved}`);
  }
  if (cause !== "declared" && cause !== "deleted") {
    assert.equal(ledger.deleted, before.deleted, `${where}: deleted`);
  }
  // No overselling: held and sold units increase only if units are available. A shortfall is caused by
  // a seller or a count that removed units, never by a buyer.
  const promised = ledger.reserved + ledger.sold - before.reserved - before.sold;
  if (promised > 0) {
    assert.ok(uncovered(ledger) >= 0, `${where}: oversold by ${-uncovered(ledger)}`);
    assert.ok(!ledger.deleted, `${where}: sold after its deletion`);
  }
}

/** The changes of one reservation add up to what it holds: nothing was applied twice. */
function checkMoves(
  where: string,
  reservation: Reservation,
  quantity: number,
  changes: readonly StockChange[],
): void {
  const { reservationId, state } = reservation;
  const causes = changes.filter((change) => change.referenceId === reservationId).map(({ cause }) => cause);
  const sequence = causes.join(" ");
  const allowed: Readonly<Record<Reservation["state"], readonly string[]>> = {
    active: ["reserved"],
    released: ["reserved released", "reserved expired"],
    expired: ["reserved expired"],
    committed: [
      "reserved committed",
      "reserved released",
      "reserved expired reserved committed",
      "reserved expired",
    ],
  };
  assert.ok(allowed[state].includes(sequence), `${where}: ${reservationId} is ${state} after: ${sequence}`);
  const at = changes.findIndex(
    ({ cause, referenceId }) => cause === "reserved" && referenceId === reservationId,
  );
  const held = (changes[at]?.ledger.reserved ?? 0) - (changes[at - 1]?.ledger.reserved ?? 0);
  assert.equal(held, quantity, `${where}: ${reservationId} holds`);
}

/** The changes of one reservation add up to what it holds and, but for returns, to what it has sold. */
function checkSums(
  where: string,
  reservation: Reservation,
  quantity: number,
  changes: readonly StockChange[],
): void {
  const { reservationId, state } = reservation;
  let [held, sold] = [0, 0];
  for (const [index, { ledger, referenceId }] of changes.entries()) {
    if (referenceId === reservationId) {
      held += ledger.reserved - (changes[index - 1]?.ledger.reserved ?? 0);
      sold += ledger.sold - (changes[index - 1]?.ledger.sold ?? 0);
    }
  }
  const productId = changes[0]?.ledger.productId ?? "";
  assert.equal(held, state === "active" ? quantity : 0, `${where}: ${reservationId} is ${state} and holds`);
  const kept = soldOf(reservation, productId);
  assert.ok(
    kept <= sold && sold <= quantity,
    `${where}: ${reservationId} is ${state}, sold ${sold}, kept ${kept}`,
  );
}

/** On hand, less held and withheld units. Negative if those exceed on hand. */
function uncovered({ declared, adjusted, sold, reserved, safety }: Ledger): number {
  return declared + adjusted - sold - reserved - safety;
}

function soldOf({ state, lines, committedLines }: Reservation, productId: string): number {
  const effective = committedLines.length > 0 ? committedLines : lines;
  const units = effective.filter((line) => line.productId === productId).map((line) => line.quantity);
  return state === "committed" ? sum(units) : 0;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

function emptyLedger({ productId }: Ledger): Ledger {
  const zeros = { declared: 0, adjusted: 0, sold: 0, reserved: 0, safety: 0, version: 0 };
  return { productId, declareTimeMicros: undefined, ...zeros, deleted: true };
}

/** The result, or `undefined` if the store does not know the product or reservation. */
async function find<T>(result: Promise<T>): Promise<T | undefined> {
  try {
    return await result;
  } catch (error) {
    if (error instanceof InventoryError && /_UNKNOWN$/.test(error.code)) {
      return undefined;
    }
    throw error;
  }
}
