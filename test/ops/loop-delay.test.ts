import assert from "node:assert/strict";
import { describe, it, mock } from "node:test";
import { readConfig } from "../../server/config.ts";
import { LoopDelay } from "../../server/ops/loop-delay.ts";

const LOOK_INTERVAL_MS = 20;
const LONG_MS = 3_600_000;
/** From here on known callers are refused, as docs/security.md has it. */
const KNOWN_REFUSED_MS = 10 * readConfig({}).callLimits.shedDelayMs;

describe("the event loop's lateness", () => {
  it("shuts nobody out who is known for one long turn, after a time of short ones too", () => {
    mock.timers.enable({ apis: ["setInterval"] });
    try {
      let nowMs = 0;
      const delay = new LoopDelay(() => nowMs);
      const lookLate = (lateMs: number): void => {
        nowMs += LOOK_INTERVAL_MS + lateMs;
        mock.timers.tick(LOOK_INTERVAL_MS);
      };
      for (let look = 0; look < 100; look++) lookLate(100);
      lookLate(LONG_MS);
      assert.ok(delay.ms < KNOWN_REFUSED_MS, `${delay.ms} ms`);
      for (let look = 0; look < 10; look++) lookLate(LONG_MS);
      assert.ok(delay.ms > KNOWN_REFUSED_MS, `${delay.ms} ms: a jam that lasts is met`);
      delay.stop();
    } finally {
      mock.timers.reset();
    }
  });
});
