import type { Line } from "../../server/inventory/reservation.ts";
import { type Call, ledgerText, type Result, refusalText, reservationText, stockText } from "./calls.ts";
import type { Recorded } from "./history.ts";

// Handwritten histories that test the checker.

const put: Call = { kind: "put", productId: "p", declared: 1, micros: 1 };
const line = (quantity: number): Line[] => [{ productId: "p", quantity }];
const reserve = (reservationId: string, quantity = 1, ttlMs = 3_600_000): Call => ({
  ...{ kind: "reserve", reservationId, lines: line(quantity), ttlMs },
});
const release = (reservationId: string): Call => ({ kind: "release", reservationId });
const commit = (reservationId: string): Call => ({
  ...{ kind: "commit", reservationId, lines: undefined, strict: false },
});
const get = (reservationId: string): Call => ({ kind: "get", reservationId });
const adjust = (delta: number, adjustmentId: string): Call => ({
  ...{ kind: "adjust", productId: "p", delta, adjustmentId },
});
const giveBack = (returnId: string): Call => ({
  ...{ kind: "return", reservationId: "r", returnId, lines: line(1) },
});
const keepBack = (safety: number): Call => ({ kind: "safety", productId: "p", safety });
const stock: Call = { kind: "stock", productId: "p" };
const ledger: Call = { kind: "ledger", productId: "p" };

const is = (state: string, quantity = 1, revived = false): Result =>
  reservationText({ state, lines: line(quantity), committedLines: [], revived });
const numbers = (given: Partial<Parameters<typeof ledgerText>[0]>): Result =>
  ledgerText({
    ...{ declared: 1, adjusted: 0, sold: 0, reserved: 0, safety: 0, version: 1, deleted: false },
    ...given,
  });
const shows = (available: number, version: number): Result => stockText({ available, version });
const short = (requested: number, available: number): Result =>
  refusalText({ code: "STOCK_SHORT", short: [["p", requested, available]] });
const ended: Result = refusalText({ code: "RESERVATION_ENDED", short: [] });

/** A call from one time to another; without a result its response was lost. One unit of "p" is declared before. */
type Made = readonly [startMs: number, endMs: number, call: Call, result?: Result];

function made(...calls: readonly Made[]): Recorded[] {
  const declared = ledgerText({ ...JSON.parse(numbers({})) }, true);
  return [[-2, -1, put, declared] as Made, ...calls].map(([startMs, atMs, call, result], client) => ({
    client,
    call,
    startMs,
    end: result === undefined ? undefined : { atMs, result },
  }));
}

/** Not linearizable, even if the store may resend calls. */
export const IMPOSSIBLE: Readonly<Record<string, Recorded[]>> = {
  "one unit sold to two concurrent clients": made(
    [0, 10, reserve("r"), is("active")],
    [0, 10, reserve("s"), is("active")],
  ),
  "one unit sold to two clients, the first of which lost its response and committed": made(
    [0, 10, reserve("r")],
    [11, 12, commit("r"), is("committed")],
    [0, 20, reserve("s"), is("active")],
  ),
  "a unit lost by a release": made(
    [0, 1, reserve("r"), is("active")],
    [2, 3, release("r"), is("released")],
    [4, 5, reserve("s"), short(1, 0)],
  ),
  "a stale result after an acknowledged write": made(
    [0, 1, adjust(5, "a"), numbers({ adjusted: 5, version: 2 })],
    [2, 3, ledger, numbers({})],
  ),
  "a reader that sees a write appear and disappear": made(
    [0, 9, adjust(5, "a"), numbers({ adjusted: 5, version: 2 })],
    [1, 2, stock, shows(6, 2)],
    [3, 4, stock, shows(1, 1)],
  ),
  "an acknowledged write that a crash lost": made(
    [0, 1, reserve("r"), is("active")],
    [2, 3, commit("r")],
    [4, 5, commit("r"), is("committed")],
    [6, 7, get("r"), is("active")],
  ),
  "a repeated adjustment that counted twice": made(
    [0, 1, adjust(5, "a")],
    [2, 3, adjust(5, "a"), numbers({ adjusted: 10, version: 3 })],
  ),
  "a repeated return that counted twice": made(
    [0, 1, reserve("r"), is("active")],
    [2, 3, commit("r"), is("committed")],
    [4, 5, giveBack("t")],
    [6, 9, ledger, numbers({ sold: -1, version: 5 })],
  ),
  "both a commit and a release": made(
    [0, 1, reserve("r"), is("active")],
    [2, 9, commit("r"), is("committed")],
    [2, 9, release("r"), is("released")],
  ),
  "a skipped version": made(
    [0, 1, reserve("r"), is("active")],
    [2, 3, ledger, numbers({ reserved: 1, version: 3 })],
  ),
  "a safety stock that was resent, although it has no operation ID": made(
    [0, 20, keepBack(1), numbers({ safety: 1, version: 4 })],
    [1, 2, stock, shows(0, 2)],
    [3, 4, keepBack(0), numbers({ version: 3 })],
  ),
  "an expiry before the deadline": made(
    [0, 1, reserve("r", 1, 50), is("active")],
    [30, 40, get("r"), is("expired")],
  ),
  "an expiry hours before the deadline": made(
    [0, 1, reserve("r"), is("active")],
    [30, 40, get("r"), is("expired")],
  ),
  "the effect of a lost call before the call": made([0, 1, stock, shows(0, 2)], [2, 3, reserve("r")]),
};

/** Linearizable, although not obviously so. */
export const EXPLAINED: Readonly<Record<string, Recorded[]>> = {
  "a lost reserve that took effect": made([0, 1, reserve("r")], [2, 3, stock, shows(0, 2)]),
  "a lost reserve that had no effect": made(
    [0, 1, reserve("r")],
    [2, 3, reserve("s"), is("active")],
    [4, 5, stock, shows(0, 2)],
  ),
  "a lost reserve that took effect long after": made(
    [0, 1, reserve("r")],
    [2, 3, stock, shows(1, 1)],
    [4, 5, reserve("s"), is("active")],
    [6, 7, release("s"), is("released")],
    [8, 9, stock, shows(1, 3)],
    [10, 11, get("r"), is("active")],
  ),
  "a lost commit and a lost release, of which the release is later rejected": made(
    [0, 1, reserve("r"), is("active")],
    [2, 3, commit("r")],
    [2, 3, release("r")],
    [4, 5, release("r"), ended],
    [6, 7, ledger, numbers({ sold: 1, version: 3 })],
  ),
  "a reader that sees a write before it is acknowledged": made(
    [0, 9, reserve("r"), is("active")],
    [1, 2, stock, shows(0, 2)],
    [3, 4, reserve("s"), short(1, 0)],
  ),
  "results in the reverse order of the calls": made(
    [0, 20, adjust(1, "a"), numbers({ adjusted: 3, version: 3 })],
    [1, 20, adjust(2, "b"), numbers({ adjusted: 2, version: 2 })],
  ),
  "a lost adjustment that was repeated and counted once": made(
    [0, 1, adjust(5, "a")],
    [2, 3, adjust(5, "a"), numbers({ adjusted: 5, version: 2 })],
    [4, 5, adjust(5, "a"), numbers({ adjusted: 5, version: 2 })],
  ),
  "an expiry after the deadline, and a late commit": made(
    [0, 1, reserve("r", 1, 50), is("active")],
    [60, 61, stock, shows(0, 2)],
    [62, 63, stock, shows(1, 3)],
    [64, 65, commit("r"), is("committed", 1, true)],
    [66, 67, ledger, numbers({ sold: 1, version: 5 })],
  ),
  "a late commit before the sweep": made(
    [0, 1, reserve("r", 1, 50), is("active")],
    [60, 61, commit("r"), is("committed", 1, true)],
    [66, 67, ledger, numbers({ sold: 1, version: 3 })],
  ),
  "a release that arrived before its reserve": made(
    [0, 9, reserve("r"), ended],
    [
      1,
      2,
      release("r"),
      reservationText({ state: "released", lines: [], committedLines: [], revived: false }),
    ],
  ),
};

/** Linearizable only if the store may have resent the first call. */
export const SENT_TWICE = made(
  [0, 20, reserve("r"), is("released")],
  [1, 2, stock, shows(0, 2)],
  [3, 4, release("r"), is("released")],
  [5, 6, stock, shows(1, 3)],
);

/** Thirty concurrent adjustments with impossible results, so that every order must be tried. */
export const HARD = made(...Array.from({ length: 30 }, (_, n): Made => [0, 9, adjust(1, `a${n}`), ended]));

/** Calls on three products and two reservations. The last one contains two of the products. */
export const APART: readonly Recorded[] = (
  [
    { kind: "stock", productId: "p" },
    { kind: "stock", productId: "q" },
    { kind: "stock", productId: "o" },
    get("s"),
    get("r"),
    { ...reserve("r"), lines: [...line(1), { productId: "q", quantity: 1 }] } as Call,
  ] satisfies Call[]
).map((call) => ({ client: 0, call, startMs: 0, end: undefined }));
