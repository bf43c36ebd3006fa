import assert from "node:assert/strict";
import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import type { Redis } from "ioredis";
import { type Reservation, ReservationState } from "../../gen/inventory/v1/reservation_pb.ts";
import type { Ledger } from "../../gen/inventory/v1/supply_pb.ts";
import type { StockChange } from "../../server/inventory/ledger.ts";
import { decodeChange } from "../../server/redis/reply.ts";
import { until } from "../support/until.ts";
import { type Caller, hasCode } from "./callers.ts";
import { type Adjustment, type Order, SHORT_TTL_MS } from "./orders.ts";

const AT_ONCE = 32;
const { ACTIVE, COMMITTED, RELEASED, EXPIRED } = ReservationState;
const ABSENT = "absent";
type State = ReservationState | typeof ABSENT;

/** A line of a message, or of an order. */
interface Units {
  readonly productId: string;
  readonly quantity?: number | undefined;
}

/** The calls that succeeded, and what they concern. */
interface Expected {
  readonly products: readonly string[];
  readonly declared: number;
  readonly orders: readonly Order[];
  readonly adjustments: readonly Adjustment[];
}

interface AuditOptions {
  readonly holdsByBucket?: boolean;
  /** Resolves when what was decided has reached the ledgers; at once unless given. */
  readonly settled?: () => Promise<unknown>;
}

/** Compares the results that clients received with the state of the service and its Redis, while no calls run. */
export class Audit {
  readonly #caller: Caller;
  readonly #primaries: readonly Redis[];
  readonly #holdsByBucket: boolean;
  readonly #settled: () => Promise<unknown>;
  /** Longest time between the deadline of a reservation and its expiry. */
  latestMs = 0;
  /** Orders and adjustments that happened although their response was lost. */
  happenedUnseen = 0;

  /**
   * `primaries`: connections to all of them. `holdsByBucket`: reservations are made bucket by bucket, as in a Cluster, so that a
   * product's history may have the holds and releases of attempts that were refused.
   */
  constructor(caller: Caller, primaries: readonly Redis[], options: AuditOptions = {}) {
    this.#caller = caller;
    this.#primaries = primaries;
    this.#holdsByBucket = options.holdsByBucket ?? false;
    this.#settled = options.settled ?? (async () => undefined);
  }

  async check(expected: Expected): Promise<void> {
    await this.#untilDueHaveExpired(expected.orders);
    await this.#settled();
    const found = await this.#reservationsOf(expected.orders);
    this.happenedUnseen = 0;
    for (const order of expected.orders) {
      this.#checkOrder(order, found.get(order.id));
    }
    const listed = await this.#listAll();
    const active = [...found.values()].filter(({ state }) => state === ACTIVE);
    assert.deepEqual(
      listed.map(({ reservationId }) => reservationId).sort(),
      active.map(({ reservationId }) => reservationId).sort(),
      "ListReservations returns the active ones",
    );
    const streams = await this.#changesByProduct();
    for (const productId of expected.products) {
      const ledger = await this.#ledgerOf(productId);
      const reserved = sum(listed.flatMap(({ lines }) => unitsOf(lines, productId)));
      const sold = sum([...found.values()].map((reservation) => soldOf(reservation, productId)));
      assert.equal(ledger.reserved, reserved, `${productId}: reserved`);
      assert.equal(ledger.sold, sold, `${productId}: sold`);
      this.#checkAdjusted(ledger, expected.adjustments);
      assert.equal(ledger.declared, expected.declared, `${productId}: declared`);
      assert.equal(ledger.onHand, ledger.declared + ledger.adjusted - ledger.sold, `${productId}: on hand`);
      assert.equal(ledger.available, Math.max(0, ledger.onHand - ledger.reserved - ledger.safety), productId);
      assert.equal(ledger.shortfall, 0, `${productId}: units were promised that are not there`);
      await this.#checkChanges(ledger, streams.get(productId) ?? []);
    }
  }

  /** Reservations past their deadline free their units. Measures how late, and checks that none is early. */
  async #untilDueHaveExpired(orders: readonly Order[]): Promise<void> {
    const short = orders.filter(({ ttlMs }) => ttlMs === SHORT_TTL_MS);
    // If a response was lost, the order may be ended or still open.
    const open = new Set(short.filter(({ commit, release }) => (commit ?? release) !== "acknowledged"));
    await until(
      async () => {
        const found = await this.#reservationsOf([...open]);
        for (const order of open) {
          if (found.get(order.id)?.state !== ACTIVE) {
            open.delete(order);
          }
        }
        return open.size === 0;
      },
      "what is due has expired",
      30_000,
    );
  }

  #checkOrder(order: Order, found: Reservation | undefined): void {
    const state: State = found?.state ?? ABSENT;
    const described = JSON.stringify(order);
    assert.ok(statesOf(order).includes(state), `${described} is in state ${state}`);
    if (found === undefined) {
      return;
    }
    assert.deepEqual(unitsByProduct(found.lines), unitsByProduct(order.lines), described);
    const { expireTime, endTime } = found;
    if (state === EXPIRED) {
      const lateMs = ms(endTime) - ms(expireTime);
      assert.ok(lateMs >= 0, `${described} expired ${-lateMs} ms early`);
      this.latestMs = Math.max(this.latestMs, lateMs);
    }
    if (state === COMMITTED) {
      const sold = unitsByProduct(order.committed ?? []);
      const less = new Map(sold);
      for (const [productId, units] of unitsByProduct(order.returned ?? [])) {
        less.set(productId, (less.get(productId) ?? 0) - units);
      }
      const possible = { undefined: [sold], acknowledged: [less], unknown: [sold, less], short: [] }[
        String(order.return) as "undefined" | "acknowledged" | "unknown" | "short"
      ];
      const met = new Map([...unitsByProduct(order.lines).keys()].map((id) => [id, soldOf(found, id)]));
      const isOne = possible.some((units) => [...met].every(([id, count]) => count === (units.get(id) ?? 0)));
      assert.ok(isOne, `${described} has sold ${JSON.stringify([...met])}`);
    }
    const unseen =
      (order.reserve === "unknown" && found !== undefined) ||
      (order.commit === "unknown" && state === COMMITTED) ||
      (order.release === "unknown" && state === RELEASED);
    this.happenedUnseen += unseen ? 1 : 0;
  }

  #checkAdjusted({ productId, adjusted }: Ledger, adjustments: readonly Adjustment[]): void {
    const ofProduct = adjustments.filter((one) => one.productId === productId);
    const of = (known: Adjustment["known"]) =>
      ofProduct.filter((one) => one.known === known).map(({ delta }) => delta);
    const least = sum(of("acknowledged"));
    // Both outcomes of each lost response: all possible sums.
    let possible = new Set([least]);
    for (const delta of of("unknown")) {
      possible = new Set([...possible].flatMap((total) => [total, total + delta]));
    }
    assert.ok(possible.has(adjusted), `${productId}: ${adjusted} adjusted, ${least} acknowledged`);
  }

  /** Checks that both records have versions without gaps or duplicates, no ID twice, and end at the state of the ledger. */
  async #checkChanges(ledger: Ledger, stream: readonly StreamChange[]): Promise<void> {
    const { productId } = ledger;
    const version = Number(ledger.version);
    assert.deepEqual(
      stream.map((change) => change.version),
      Array.from({ length: version }, (_, n) => n + 1),
      `${productId}: versions in the change stream`,
    );
    const done = new Set<string>();
    for (const { cause, reference } of stream.filter((change) => change.reference !== "")) {
      if (this.#holdsByBucket && (cause === "reserved" || cause === "released")) continue;
      const what = `${cause} ${reference}`;
      assert.ok(!done.has(what), `${productId}: ${what} twice`);
      done.add(what);
      if (cause === "expired") {
        // A late commit holds the units again.
        done.delete(`reserved ${reference}`);
      }
    }
    const listed: number[] = [];
    let pageToken = "";
    do {
      const page = await this.#caller.ask(({ supply }, options) =>
        supply.listChanges({ productId, pageSize: 60, pageToken }, options),
      );
      listed.push(...page.changes.map((change) => Number(change.version)));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    assert.ok(listed.length >= Math.min(version, 60), `${productId}: ${listed.length} changes are listed`);
    assert.deepEqual(
      listed,
      listed.map((_, n) => version - n),
      `${productId}: versions in ListChanges`,
    );
  }

  async #reservationsOf(orders: readonly Order[]): Promise<Map<string, Reservation>> {
    const found = new Map<string, Reservation>();
    let next = 0;
    const worker = async (): Promise<void> => {
      for (let order = orders[next++]; order !== undefined; order = orders[next++]) {
        const { id: reservationId } = order;
        try {
          const { reservation } = await this.#caller.ask(({ reservations }, options) =>
            reservations.getReservation({ reservationId }, options),
          );
          if (reservation !== undefined) {
            found.set(reservationId, reservation);
          }
        } catch (error) {
          assert.ok(hasCode(error, Code.NotFound), String(error));
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    return found;
  }

  async #listAll(): Promise<Reservation[]> {
    const listed: Reservation[] = [];
    let pageToken = "";
    do {
      const page = await this.#caller.ask(({ reservations }, options) =>
        reservations.listReservations({ pageSize: 250, pageToken }, options),
      );
      listed.push(...page.reservations);
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    return listed;
  }

  async #ledgerOf(productId: string): Promise<Ledger> {
    const { ledger } = await this.#caller.ask(({ supply }, options) =>
      supply.getLedger({ productId }, options),
    );
    assert.ok(ledger);
    return ledger;
  }

  /** The change streams of all buckets in Redis. */
  async #changesByProduct(): Promise<Map<string, StreamChange[]>> {
    const changes = await readChanges(this.#primaries);
    return new Map(
      [...changes].map(([productId, stream]) => [
        productId,
        stream.map(({ ledger, cause, referenceId }) => ({
          version: ledger.version,
          cause,
          reference: referenceId,
        })),
      ]),
    );
  }
}

/** All changes in the streams of the primaries by product, oldest first. */
export async function readChanges(primaries: readonly Redis[]): Promise<Map<string, StockChange[]>> {
  const byProduct = new Map<string, StockChange[]>();
  for (const redis of primaries) {
    for (const stream of await redis.keys("{b*}:changes")) {
      for (const entry of await redis.xrange(stream, "-", "+")) {
        const change = decodeChange(entry);
        const { productId } = change.ledger;
        byProduct.set(productId, [...(byProduct.get(productId) ?? []), change]);
      }
    }
  }
  return byProduct;
}

interface StreamChange {
  readonly version: number;
  readonly cause: string;
  readonly reference: string;
}

/** Every state that the results received by the caller allow, once nothing is due. */
function statesOf({ ttlMs, reserve, commit, release, retried }: Order): readonly State[] {
  const held = ttlMs === SHORT_TTL_MS ? EXPIRED : ACTIVE;
  if (reserve === "short") {
    return retried ? [ABSENT, held] : [ABSENT];
  }
  if (reserve === "unknown") {
    return [ABSENT, held];
  }
  const end = commit ?? release;
  if (end === undefined) {
    return [held];
  }
  switch (end) {
    case "acknowledged":
      return [commit === undefined ? RELEASED : COMMITTED];
    case "short":
      // Only a commit after the deadline can find its units sold to another order.
      return ttlMs === SHORT_TTL_MS ? [EXPIRED, ...(retried ? [COMMITTED] : [])] : [];
    case "unknown":
      return [held, commit === undefined ? RELEASED : COMMITTED];
  }
}

function unitsByProduct(lines: readonly Units[]): Map<string, number> {
  const units = new Map<string, number>();
  for (const { productId, quantity = 0 } of lines) {
    units.set(productId, (units.get(productId) ?? 0) + quantity);
  }
  return units;
}

const unitsOf = (lines: readonly Units[], productId: string): number[] =>
  lines.filter((line) => line.productId === productId).map(({ quantity = 0 }) => quantity);

function soldOf({ state, lines, committedLines }: Reservation, productId: string): number {
  return state === COMMITTED
    ? sum(unitsOf(committedLines.length > 0 ? committedLines : lines, productId))
    : 0;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

function ms(time: Timestamp | undefined): number {
  assert.ok(time);
  return timestampMs(time);
}
