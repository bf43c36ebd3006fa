import assert from "node:assert/strict";
import { describe, it } from "node:test";
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
