import { type Line, linesFingerprint } from "../../server/inventory/reservation.ts";
import type { Coordinator } from "../../server/inventory/sharded/coordinator.ts";
import { unitsToSell } from "../../server/memory/reservation-record.ts";
import type { Expired } from "./buckets.ts";
import { type Bounds, type Call, type Scenario, TTL_LONG_MS, TTL_MS } from "./explorer.ts";
import { type Script, withoutAnswer } from "./scripts.ts";

/** Products a and b, and the home of every order, in three buckets. */
const APART = { a: 0, b: 1, order: 2, rival: 2 };

type Product = "a" | "b";
type Units = Readonly<Record<string, number>>;

const linesOf = (units: Units): Line[] =>
  Object.entries(units).map(([productId, quantity]) => ({ productId, quantity }));
const text = (units: Units): string =>
  Object.entries(units)
    .map(([productId, quantity]) => `${quantity} ${productId}`)
    .join(" and ");

interface Options {
  readonly after?: Call;
  /** To tell calls apart that would have the same name. */
  readonly suffix?: string;
}

function reserve(reservationId: string, units: Units, { after, suffix = "" }: Options = {}): Call {
  const lines = linesOf(units);
  return {
    name: `reserve ${reservationId}: ${text(units)}${suffix}`,
    kind: "reserve",
    reservationId,
    after: after?.name,
    start: (coordinator) => coordinator.reserve({ reservationId, lines, ttlMs: TTL_MS, actor: undefined }),
    explains: ({ fingerprint }) => fingerprint === linesFingerprint(lines),
  };
}

function commit(
  reservationId: string,
  units: Units = {},
  { after, strict = false }: Options & { readonly strict?: boolean } = {},
): Call {
  const lines = linesOf(units);
  return {
    name: `commit ${reservationId}${lines.length > 0 ? `: ${text(units)}` : ""}${strict ? ", strict" : ""}`,
    kind: "commit",
    reservationId,
    after: after?.name,
    start: (coordinator) => coordinator.commit({ reservationId, lines, strict, actor: undefined }),
    explains: (record) =>
      record.state === "committed" && String(unitsToSell(record, lines)) === String(record.sold),
  };
}

function release(reservationId: string, { after }: Options = {}): Call {
  return {
    name: `release ${reservationId}`,
    kind: "release",
    reservationId,
    after: after?.name,
    start: (coordinator) => coordinator.release(reservationId, undefined),
    explains: ({ state }) => state === "released",
  };
}

function extend(reservationId: string, ttlMs: number, { after }: Options = {}): Call {
  return {
    name: `extend ${reservationId}`,
    kind: "extend",
    reservationId,
    after: after?.name,
    start: (coordinator) => coordinator.extend(reservationId, ttlMs),
    explains: () => true,
  };
}

function returns(reservationId: string, returnId: string, units: Units, { after }: Options = {}): Call {
  const lines = linesOf(units);
  return {
    name: `return ${returnId} of ${reservationId}: ${text(units)}`,
    kind: "return",
    reservationId,
    after: after?.name,
    start: (coordinator) => coordinator.return({ reservationId, returnId, lines, actor: undefined }, () => 0),
    explains: ({ state, returnIds }) => state === "committed" && returnIds.includes(returnId),
  };
}

function declare(productId: Product, declared: number): Call {
  return {
    name: `declare ${declared} ${productId}`,
    kind: "declare",
    reservationId: productId,
    start: () => withoutAnswer(declaring(productId, declared)),
    explains: () => false,
  };
}

function* declaring(productId: Product, declared: number): Script<void> {
  yield [{ step: "declare", bucket: APART[productId], productId, declared }];
}

/** A sweep of the home's deadlines, which settles what it has expired. */
function expire(): Call {
  return {
    name: "sweep",
    kind: "expire",
    reservationId: "order",
    start: (coordinator) => withoutAnswer(sweeping(coordinator)),
    explains: () => false,
  };
}

function* sweeping(coordinator: Coordinator): Script<void> {
  const [swept] = (yield [{ step: "expire", bucket: APART.order }]) as [Expired];
  for (const { reservationId, effects } of swept.expired) {
    yield* coordinator.settle(reservationId, effects) as Script<void>;
  }
}

const done = (call: Call) => ({ call, followsUp: true });
/** The server dies after the answer, or, for a sweep, after the first step. */
const cut = (call: Call) => ({ call, followsUp: false });

const CART = { a: 1, b: 1 };
const RESERVED = reserve("order", CART);
/** Expired by a sweep that has settled it. */
const EXPIRED = [done(RESERVED), "deadline", done(expire())] as const;
/** Expired by a sweep whose server died before it settled anything. */
const EXPIRED_UNSETTLED = [done(RESERVED), "deadline", cut(expire())] as const;

/** The bounds of the small form and of the long one. */
export interface BoundedScenario extends Omit<Scenario, "bounds"> {
  readonly small: Bounds;
  readonly long: Bounds;
}

const bounds = (duplicates: number, failures: number, repairs: number, attempts = 2): Bounds => ({
  duplicates,
  failures,
  repairs,
  attempts,
});

export const SCENARIOS: readonly BoundedScenario[] = [
  {
    name: "retry: two attempts at one ID, and a rival for the last unit",
    bucketOf: APART,
    declared: { a: 2, b: 1 },
    calls: [reserve("order", CART), reserve("order", CART), reserve("rival", { b: 1 })],
    small: bounds(0, 0, 1),
    long: bounds(1, 1, 1, 3),
  },
  {
    name: "lost replies: a call that fails anywhere, and its retry",
    bucketOf: APART,
    declared: { a: 1, b: 1 },
    calls: [reserve("order", CART), reserve("order", CART)],
    small: bounds(0, 1, 0),
    long: bounds(1, 1, 2),
  },
  {
    name: "reused ID: two contents under one ID",
    bucketOf: APART,
    declared: { a: 3, b: 3 },
    calls: [reserve("order", CART), reserve("order", { a: 2, b: 1 })],
    small: bounds(0, 0, 1),
    long: bounds(1, 0, 1, 3),
  },
  {
    name: "reused ID: two contents in different buckets, a release and a retry",
    bucketOf: APART,
    declared: { a: 1, b: 1 },
    calls: [reserve("order", { a: 1 }), reserve("order", { b: 1 }), release("order")],
    small: bounds(0, 0, 1),
    long: bounds(1, 1, 2, 3),
  },
  {
    name: "tombstone: a release before, during and after the reservation",
    bucketOf: APART,
    declared: { a: 1, b: 1 },
    calls: [reserve("order", CART), release("order"), reserve("rival", { a: 1 })],
    small: bounds(1, 0, 0),
    long: bounds(1, 1, 2),
  },
  {
    name: "refused cart: short in one bucket, beside a rival, a restock and a lowered count",
    bucketOf: APART,
    declared: { a: 1, b: 1 },
    calls: [reserve("order", CART), reserve("rival", { b: 1 }), declare("b", 2), declare("a", 0)],
    small: bounds(0, 0, 1),
    long: bounds(1, 1, 2),
  },
  {
    name: "two carts: each takes the other's last unit",
    bucketOf: APART,
    declared: { a: 1, b: 1 },
    calls: [reserve("order", CART), reserve("rival", { b: 1, a: 1 })],
    small: bounds(0, 0, 1),
    long: bounds(1, 1, 2),
  },
  {
    name: "commit and release: race for an active reservation",
    bucketOf: APART,
    declared: { a: 1, b: 1 },
    given: [done(RESERVED)],
    calls: [commit("order"), commit("order", { a: 1 }), release("order")],
    small: bounds(1, 0, 1),
    long: bounds(2, 1, 2),
  },
  {
    name: "reserve to commit: a commit after the answer, a delayed reserve, a release",
    bucketOf: APART,
    declared: { a: 1, b: 1 },
    calls: [RESERVED, commit("order", {}, { after: RESERVED }), release("order", { after: RESERVED })],
    small: bounds(1, 0, 1),
    long: bounds(2, 1, 2),
  },
  {
    name: "expiry: sweep, extend, strict and plain commit of a reservation that is due",
    bucketOf: APART,
    declared: { a: 1, b: 1 },
    given: [done(RESERVED)],
    calls: [
      expire(),
      extend("order", TTL_LONG_MS),
      commit("order", { a: 1 }),
      commit("order", {}, { strict: true }),
    ],
    deadlinePasses: true,
    small: bounds(0, 0, 1),
    long: bounds(1, 1, 2),
  },
  {
    name: "late commit: two with other quantities, and a release",
    bucketOf: APART,
    declared: { a: 2, b: 2 },
    given: [done(reserve("order", { a: 2, b: 2 })), "deadline", cut(expire())],
    calls: [commit("order", { a: 1 }), commit("order", { a: 2, b: 1 }), release("order")],
    small: bounds(0, 0, 1),
    long: bounds(1, 1, 1),
  },
  {
    name: "late commit: two in different buckets, and a rival for the units",
    bucketOf: APART,
    declared: { a: 1, b: 1 },
    given: EXPIRED_UNSETTLED,
    calls: [commit("order", { a: 1 }), commit("order", { b: 1 }), reserve("rival", { a: 1 })],
    small: bounds(0, 0, 1),
    long: bounds(1, 1, 1, 3),
  },
  {
    name: "late commit: twice the same, replies lost, and a lowered count",
    bucketOf: APART,
    declared: { a: 1, b: 1 },
    given: EXPIRED,
    calls: [commit("order"), commit("order"), declare("a", 0)],
    small: bounds(0, 1, 0),
    long: bounds(1, 1, 1),
  },
  {
    name: "late commit: a reservation whose sweep is under way, with its return",
    bucketOf: APART,
    declared: { a: 1, b: 1 },
    given: [done(RESERVED), "deadline"],
    calls: [expire(), commit("order"), returns("order", "return", { a: 1 }, { after: commit("order") })],
    small: bounds(0, 0, 1),
    long: bounds(1, 1, 1),
  },
  {
    name: "late commit: the reply to its last attempt is lost, and a release",
    bucketOf: APART,
    declared: { a: 1, b: 1 },
    given: EXPIRED_UNSETTLED,
    calls: [commit("order"), release("order")],
    small: bounds(1, 0, 1, 1),
    long: bounds(2, 1, 2, 1),
  },
  {
    name: "return: of a commit whose effects nobody applied, twice, and another one",
    bucketOf: APART,
    declared: { a: 2, b: 1 },
    given: [done(reserve("order", { a: 2, b: 1 })), cut(commit("order"))],
    calls: [
      returns("order", "return", { a: 1 }),
      returns("order", "return", { a: 1 }),
      returns("order", "second return", { a: 1, b: 1 }),
    ],
    small: bounds(0, 0, 1),
    long: bounds(1, 1, 2),
  },
  {
    name: "one bucket: record and both products together",
    bucketOf: { a: 0, b: 0, order: 0, rival: 0 },
    declared: { a: 1, b: 1 },
    calls: [RESERVED, reserve("order", { a: 1 }), release("order")],
    small: bounds(0, 0, 1),
    long: bounds(1, 1, 2),
  },
  {
    name: "whole life: reserve, sweep, late commit and release, each at any time",
    bucketOf: APART,
    declared: { a: 1, b: 1 },
    calls: [RESERVED, expire(), commit("order"), release("order")],
    deadlinePasses: true,
    small: bounds(0, 0, 1),
    long: bounds(1, 1, 1),
  },
];
