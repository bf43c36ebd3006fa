import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { InventoryError } from "../../server/inventory/errors.ts";
import { Coalescer } from "../../server/redis/coalescer.ts";

/** Between two answers of a store that is busy. */
const PACE_MS = 5;
const RESPONSE_MS_MAX = 1_000;
/** More than a busy store answers until the last one's patience is over. */
const AHEAD = 5_000;

/** Holds the whole process up, as a collection of garbage does. */
function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

describe("a coalescer whose store is busy with others", () => {
  it("refuses as overloaded what was not sent, and nothing that was: it may have happened", async (t) => {
    const underWay = new Map<string, () => void>();
    const coalescer = new Coalescer<string, string>({
      send: ([item = ""]) => new Promise((resolve) => underWay.set(item, () => resolve([`${item} done`]))),
      weightOf: () => 1,
      batchWeightMax: 1,
      batchItemsMax: 1,
      inFlightMax: 2,
      waitingMax: AHEAD + 2,
      answerMsMax: RESPONSE_MS_MAX,
      patienceMsMax: 1,
      mayRepeat: () => false,
      errorOf: (error) => error,
      isReady: () => true,
      isLongGone: () => false,
      onceReady: () => {},
    });
    t.after(() => coalescer.close());
    const answer = (item: string) => {
      underWay.get(item)?.();
      underWay.delete(item);
    };

    const slow = coalescer.submit("slow");
    for (let n = 1; n < AHEAD; n++) {
      coalescer.submit(`other ${n}`).catch(() => {});
    }
    // That the process stands still just before the last one's turn is no silence of the store.
    coalescer.submit("last but one").catch(() => standStill(RESPONSE_MS_MAX + PACE_MS));
    const last = coalescer.submit("last");
    const busy = setInterval(() => {
      for (const item of underWay.keys()) {
        if (item !== "slow") {
          answer(item);
        }
      }
    }, PACE_MS);
    t.after(() => clearInterval(busy));

    await assert.rejects(
      last,
      (error: unknown) => error instanceof InventoryError && error.code === "OVERLOADED",
    );
    answer("slow");
    assert.equal(await slow, "slow done");
  });
});
