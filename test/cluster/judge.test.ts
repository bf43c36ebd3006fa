import assert from "node:assert/strict";
import { before, describe, it } from "node:test";
import type { StockChange } from "../../server/inventory/ledger.ts";
import { MemoryStore } from "../../server/memory/store.ts";
import { Round } from "../model/clients.ts";
import type { Recorded } from "../model/history.ts";
import { askOf } from "../model/rounds.ts";
import { judgeApart } from "./judge.ts";

const CHANGES_KEPT = 10_000;

/** Falsifies a history by one record of a kind. */
type Falsify = (history: Recorded[]) => void;

/** Replaces the result of the last call that it fits. */
function forge(fits: RegExp, ofKind: string, change: (result: string) => string): Falsify {
  return (history) => {
    const index = history.findLastIndex(
      ({ call, end }) => call.kind === ofKind && end !== undefined && fits.test(end.result),
    );
    const found = history[index];
    assert.ok(found?.end, `no ${ofKind} has a result like ${fits}`);
    history[index] = { ...found, end: { ...found.end, result: change(found.end.result) } };
  };
}

const FALSE_HISTORIES: Readonly<Record<string, Falsify>> = {
  "a ledger of another state than its version": forge(/"reserved":/, "ledger", (result) =>
    result.replace(/"reserved":(\d+)/, (_, units: string) => `"reserved":${Number(units) + 1}`),
  ),
  "a stale read": (history) => {
    const last = history.findLast(({ call, end }) => call.kind === "ledger" && end !== undefined);
    const productId = last?.call.kind === "ledger" ? last.call.productId : "";
    const first = history.find(({ call }) => call.kind === "put" && call.productId === productId);
    assert.ok(last && first?.end);
    const { applied: _, ...state } = JSON.parse(first.end.result);
    history.push({
      ...last,
      startMs: Number(last.end?.atMs) + 1,
      end: { atMs: Number(last.end?.atMs) + 2, result: JSON.stringify(state) },
    });
  },
  "a lost adjustment": (history) => {
    const found = history.findLast(
      ({ call, end }) => call.kind === "adjust" && !/"code"/.test(end?.result ?? ""),
    );
    assert.ok(found?.call.kind === "adjust");
    history.push({ ...found, call: { ...found.call, adjustmentId: "lost" } });
  },
  "a shortage that never was": forge(/STOCK_SHORT/, "reserve", (result) =>
    result.replace(/,(\d+),(\d+)\]/, ",1000000,999999]"),
  ),
  "a reservation that is lost": forge(/"state":"active"/, "get", () => '{"code":"RESERVATION_UNKNOWN"}'),
  "a commit after a release": (history) => {
    const released = history.findLast(
      ({ call, end }) => call.kind === "get" && /"state":"released","lines":\[\[/.test(end?.result ?? ""),
    );
    assert.ok(released?.end && released.call.kind === "get");
    const { reservationId } = released.call;
    const startMs = released.end.atMs + 1;
    const result = released.end.result.replace("released", "committed");
    const call = { kind: "commit", reservationId, lines: undefined, strict: false } as const;
    history.push({ client: 0, call, startMs, end: { atMs: startMs + 1, result } });
  },
};

describe("the judgement of histories of a Cluster", () => {
  let history: readonly Recorded[];
  let changesOf: (productId: string) => Promise<readonly StockChange[]>;

  before(async () => {
    const store = new MemoryStore({ changesKept: CHANGES_KEPT });
    const asks = [askOf(store)];
    const round = new Round({ name: "judged", seed: 7, clients: 20, shops: 3, callsPerClient: 20, asks });
    await round.run();
    history = round.history;
    changesOf = async (productId) =>
      (await store.listChanges(productId, { limit: CHANGES_KEPT, beforeVersion: undefined })).reverse();
  });

  it("accepts a history of one linearizable store", async () => {
    const { reservations, products, shortages } = await judgeApart(history, changesOf);
    assert.ok(
      reservations > 50 && products === 6 && shortages > 5,
      `${reservations}, ${products}, ${shortages}`,
    );
  });

  for (const [name, falsify] of Object.entries(FALSE_HISTORIES)) {
    it(`rejects ${name}`, async () => {
      const forged = [...history];
      falsify(forged);
      await assert.rejects(judgeApart(forged, changesOf), { code: "ERR_ASSERTION" });
    });
  }
});
