import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { InventoryError } from "../../server/inventory/errors.ts";
import { Coalescer } from "../../server/redis/mutations/coalescer.ts";

/** Interval between two replies of a busy store. */
const PACE_MS = 5;
const RESPONSE_MS_MAX = 1_000;
/** More items than a busy store answers before the queue timeout of the last one. */
const AHEAD = 5_000;

/** Blocks the event loop, as a garbage collection does. */
function blockEventLoop(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

describe("Coalescer with a busy store", () => {
  it("rejects queued items as OVERLOADED after the queue timeout, and never items that were sent", async (t) => {
    const inFlight = new Map<string, () => void>();
    const coalescer = new Coalescer<string, string>({
      send: ([item = ""]) => new Promise((resolve) => inFlight.set(item, () => resolve([`${item} done`]))),
      weightOf: () => 1,
      batchWeightMax: 1,
      batchItemsMax: 1,
      inFlightMax: 2,
      queueMax: AHEAD + 2,
      responseMsMax: RESPONSE_MS_MAX,
      queueMsMax: 1,
      shouldResend: () => false,
      errorOf: (error) => error,
      isReady: () => true,
      unavailability: () => undefined,
      onceReady: () => {},
    });
    t.after(() => coalescer.close());
    const reply = (item: string) => {
      inFlight.get(item)?.();
      inFlight.delete(item);
    };

    const slow = coalescer.submit("slow");
    for (let n = 1; n < AHEAD; n++) {
      coalescer.submit(`other ${n}`).catch(() => {});
    }
    // A stall of the process before the timer of the last item is not a stall of the store.
    coalescer.submit("last but one").catch(() => blockEventLoop(RESPONSE_MS_MAX + PACE_MS));
    const last = coalescer.submit("last");
    const busy = setInterval(() => {
      for (const item of inFlight.keys()) {
        if (item !== "slow") {
          reply(item);
        }
      }
    }, PACE_MS);
    t.after(() => clearInterval(busy));

    await assert.rejects(
      last,
      (error: unknown) => error instanceof InventoryError && error.code === "OVERLOADED",
    );
    reply("slow");
    assert.equal(await slow, "slow done");
  });
});

describe("Coalescer with more items than a batch", () => {
  it("has more batches in flight while they are full, and holds back a smaller one, which can grow", async () => {
    const sent: (readonly string[])[] = [];
    const replies: (() => void)[] = [];
    const coalescer = new Coalescer<string, string>({
      send: (items) => {
        sent.push(items);
        return new Promise((resolve) => replies.push(() => resolve(items)));
      },
      weightOf: () => 1,
      batchWeightMax: 2,
      batchItemsMax: 2,
      inFlightMax: 1,
      fullInFlightMax: 3,
      queueMax: 100,
      responseMsMax: RESPONSE_MS_MAX,
      queueMsMax: RESPONSE_MS_MAX,
      shouldResend: () => false,
      errorOf: (error) => error,
      isReady: () => true,
      unavailability: () => undefined,
      onceReady: () => {},
    });
    const results = ["a", "b", "c", "d", "e"].map((item) => coalescer.submit(item));
    await nextTurn();
    assert.deepEqual(sent, [
      ["a", "b"],
      ["c", "d"],
    ]);
    results.push(coalescer.submit("f"), coalescer.submit("g"), coalescer.submit("h"), coalescer.submit("i"));
    await nextTurn();
    assert.deepEqual(sent.slice(2), [["e", "f"]]);
    while (replies.length > 0) {
      replies.shift()?.();
      await nextTurn();
    }
    assert.deepEqual(sent.slice(3), [["g", "h"], ["i"]]);
    assert.deepEqual(await Promise.all(results), ["a", "b", "c", "d", "e", "f", "g", "h", "i"]);
  });
});
