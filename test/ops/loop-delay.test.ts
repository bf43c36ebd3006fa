import assert from "node:assert/strict";
import { describe, it, mock } from "node:test";
import { readConfig } from "../../server/config.ts";
import { LoopDelay } from "../../server/ops/loop-delay.ts";

const LOOK_INTERVAL_MS = 20;
const LONG_MS = 3_600_000;
/** The default limit for authenticated clients, as in docs/security.md. */
const KNOWN_REFUSED_MS = 10 * readConfig({}).callLimits.shedDelayMs;

describe("event loop delay", () => {
  it("stays below the limit for authenticated clients after one long turn, also after a series of short delays", () => {
    mock.timers.enable({ apis: ["setInterval"] });
    try {
      let nowMs = 0;
      const delay = new LoopDelay(() => nowMs);
      const sampleLate = (lateMs: number): void => {
        nowMs += LOOK_INTERVAL_MS + lateMs;
        mock.timers.tick(LOOK_INTERVAL_MS);
      };
      for (let i = 0; i < 100; i++) sampleLate(100);
      sampleLate(LONG_MS);
      assert.ok(delay.ms < KNOWN_REFUSED_MS, `${delay.ms} ms`);
      for (let i = 0; i < 10; i++) sampleLate(LONG_MS);
      assert.ok(delay.ms > KNOWN_REFUSED_MS, `${delay.ms} ms: a jam that lasts is met`);
      delay.stop();
    } finally {
      mock.timers.reset();
    }
  });
});
