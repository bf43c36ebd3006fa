import assert from "node:assert/strict";
import type { Ledger, StockChange } from "../../server/inventory/ledger.ts";
import { type Call, ledgerText, stockText } from "../model/calls.ts";
import { judge, type Recorded } from "../model/history.ts";
import { nothing, step } from "../model/specification.ts";

// Judges what callers of a Cluster recorded. The order of all operations is not that of one object there: each reservation is
// linearizable, and each product is (Herlihy and Wing 1990, theorem 1, the other way round). A product's history has a version
// for each of its states, so its operations need no search: every result must be the state of its version, and the versions
// must follow the order in time. A shortage must be explained by a state that the product had during the call.

/** Reads all changes of a product, oldest first. */
export type ChangesOf = (productId: string) => Promise<readonly StockChange[]>;

/** More than all clients of a round ask for: a reservation by itself never meets a shortage. */
const PLENTY = 1_000_000;
/** Refusals for a reason that lies in a product. They leave no trace in the reservation. */
const OF_PRODUCTS = /"code":"(STOCK_SHORT|PRODUCT_UNKNOWN|STOCK_OUT_OF_RANGE)"/;
/** The clocks of the nodes and of the recorder are one, with a resolution of 1 ms. */
const CLOCK_SLACK_MS = 2;

export interface Judgement {
  readonly reservations: number;
  readonly products: number;
  readonly shortages: number;
  readonly steps: number;
}

/** Throws if the history of a round that began with new products and reservations cannot be explained. */
export async function judgeApart(history: readonly Recorded[], changesOf: ChangesOf): Promise<Judgement> {
  const byReservation = Map.groupBy(history, ({ call }) =>
    "reservationId" in call ? call.reservationId : "",
  );
  let steps = 0;
  for (const [reservationId, calls] of byReservation) {
    if (reservationId !== "") steps += judgeReservation(calls);
  }
  const products = new Map<string, Product>();
  for (const productId of new Set(history.flatMap(({ call }) => productsOf(call)))) {
    const product = new Product(productId, await changesOf(productId));
    products.set(productId, product);
    product.judge(history.filter(({ call }) => "productId" in call && call.productId === productId));
  }
  let shortages = 0;
  for (const recorded of history) {
    for (const [productId, requested, available] of shortagesIn(recorded)) {
      shortages += 1;
      products.get(productId)?.explain(recorded, requested, available);
    }
  }
  return { reservations: byReservation.size - 1, products: products.size, shortages, steps };
}

function productsOf(call: Call): string[] {
  if ("productId" in call) return [call.productId];
  return "lines" in call ? (call.lines ?? []).map(({ productId }) => productId) : [];
}

/** Searches for an order of the calls on one reservation, with plenty of each product. Returns the number of steps. */
function judgeReservation(calls: readonly Recorded[]): number {
  const own = calls.filter(({ end }) => end === undefined || !OF_PRODUCTS.test(end.result));
  const stock = [...new Set(own.flatMap(({ call }) => productsOf(call)))].map((productId): Recorded => {
    const call: Call = { kind: "put", productId, declared: PLENTY, micros: 1 };
    const end = { atMs: -1, result: step(nothing, call).result };
    return { client: -1, call, startMs: -2, end };
  });
  const verdict = judge([...stock, ...own], { mayRepeat: true });
  assert.equal(verdict.kind, "explained", `${verdict.story}\n${JSON.stringify(calls)}`);
  return verdict.steps;
}

function shortagesIn({ end }: Recorded): readonly (readonly [string, number, number])[] {
  if (end === undefined) return [];
  const { code, short = [] } = JSON.parse(end.result) as {
    code?: string;
    short?: [string, number, number][];
  };
  return code === "STOCK_SHORT" ? short : [];
}

/** The states of a product, by version. */
class Product {
  readonly #productId: string;
  readonly #changes: readonly StockChange[];

  constructor(productId: string, changes: readonly StockChange[]) {
    this.#productId = productId;
    this.#changes = changes;
    assert.deepEqual(
      changes.map(({ ledger }) => ledger.version),
      changes.map((_, index) => index + 1),
      `product ${productId}: versions have a gap`,
    );
  }

  judge(calls: readonly Recorded[]): void {
    const byEnd = calls.filter(({ end }) => end !== undefined).sort((a, b) => endOf(a) - endOf(b));
    for (const recorded of calls) {
      const where = `product ${this.#productId}: ${JSON.stringify(recorded)}`;
      const seenBefore = byEnd.filter((other) => endOf(other) < recorded.startMs).map(versionIn);
      const newestSeen = Math.max(0, ...seenBefore);
      const version = versionIn(recorded);
      if (version > 0) {
        assert.equal(stateIn(recorded), this.#textOf(version, recorded.call.kind), where);
        assert.ok(version >= newestSeen, `${where}: version ${newestSeen} was seen before`);
      }
      this.#judgeCorrection(recorded, version, calls, byEnd, where);
    }
  }

  /** A count or adjustment that was acknowledged is in the history once, and not before its first call. */
  #judgeCorrection(
    { call }: Recorded,
    version: number,
    calls: readonly Recorded[],
    byEnd: readonly Recorded[],
    where: string,
  ): void {
    const id = correctionId(call);
    if (id === undefined) return;
    const made = this.#changes.filter(({ referenceId }) => referenceId === id);
    assert.ok(made.length <= 1, `${where}: it was made ${made.length} times`);
    const [change] = made;
    if (change === undefined) {
      const mayChangeNothing = call.kind === "count" || version === 0;
      assert.ok(mayChangeNothing, `${where}: it was acknowledged and is lost`);
      return;
    }
    const firstMs = Math.min(
      ...calls.filter((other) => correctionId(other.call) === id).map(({ startMs }) => startMs),
    );
    const seenBefore = byEnd.filter((other) => endOf(other) < firstMs).map(versionIn);
    assert.ok(change.ledger.version > Math.max(0, ...seenBefore), `${where}: it was made before its call`);
    assert.ok(
      version === 0 || version >= change.ledger.version,
      `${where}: its result has an earlier version`,
    );
  }

  explain({ call, startMs, end }: Recorded, requested: number, available: number): void {
    explainShortage(this.#changes, {
      productId: this.#productId,
      reservationId: "reservationId" in call ? call.reservationId : "",
      ...{ requested, available },
      startMs: performance.timeOrigin + startMs,
      endMs: performance.timeOrigin + (end?.atMs ?? startMs),
    });
  }

  #textOf(version: number, kind: Call["kind"]): string {
    const ledger = this.#changes[version - 1]?.ledger;
    assert.ok(ledger, `product ${this.#productId}: version ${version} was told and is not in the history`);
    return kind === "stock" ? stockText({ available: availableOf(ledger, 0), version }) : ledgerText(ledger);
  }
}

/** A line of a refused reservation. Times are ms since 1970. */
export interface RefusedLine {
  readonly productId: string;
  readonly reservationId: string;
  readonly requested: number;
  readonly available: number;
  readonly startMs: number;
  readonly endMs: number;
}

/** Throws if the product, of which these are all changes, never had these units available while the call ran. */
export function explainShortage(changes: readonly StockChange[], line: RefusedLine): void {
  const [from, to] = [line.startMs - CLOCK_SLACK_MS, line.endMs + CLOCK_SLACK_MS];
  const [first] = changes;
  const during = changes.filter(
    ({ changeTimeMs }, index) =>
      changeTimeMs <= to && (changes[index + 1]?.changeTimeMs ?? Number.POSITIVE_INFINITY) >= from,
  );
  const possible = during.flatMap(({ ledger }) => {
    // An attempt does not compete with the units that an earlier attempt of the same reservation holds.
    const own = heldBy(changes.slice(0, ledger.version), line.reservationId);
    return [availableOf(ledger, 0), availableOf(ledger, own)];
  });
  if (first === undefined || first.changeTimeMs >= from) possible.push(0);
  assert.ok(
    line.available < line.requested && possible.includes(line.available),
    `refused for ${JSON.stringify(line)}, and the product had ${[...new Set(possible)]}`,
  );
}

function heldBy(changes: readonly StockChange[], reservationId: string): number {
  let held = 0;
  for (const [index, { ledger, referenceId }] of changes.entries()) {
    if (referenceId === reservationId) held += ledger.reserved - (changes[index - 1]?.ledger.reserved ?? 0);
  }
  return held;
}

function availableOf({ declared, adjusted, sold, reserved, safety, deleted }: Ledger, own: number): number {
  return deleted ? 0 : Math.max(0, declared + adjusted - sold - (reserved - own) - safety);
}

function endOf({ end }: Recorded): number {
  return end?.atMs ?? Number.POSITIVE_INFINITY;
}

/** The version in a result; 0 if it has none. */
function versionIn({ end }: Recorded): number {
  return end === undefined ? 0 : ((JSON.parse(end.result) as { version?: number }).version ?? 0);
}

/** A result without what is not the state of the product. */
function stateIn({ end }: Recorded): string {
  const { applied: _, ...state } = JSON.parse(end?.result ?? "{}") as Record<string, unknown>;
  return JSON.stringify(state);
}

function correctionId(call: Call): string | undefined {
  return call.kind === "adjust" ? call.adjustmentId : call.kind === "count" ? call.countId : undefined;
}
