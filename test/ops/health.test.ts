import assert from "node:assert/strict";
import { it } from "node:test";
import { Health, type UnreadyReasons } from "../../server/ops/health.ts";

it("an outdated check result does not replace a newer one", async (t) => {
  const health = new Health();
  t.after(() => health.close());
  const results = [Promise.withResolvers<string | undefined>(), Promise.withResolvers<string | undefined>()];
  let runs = 0;
  health.addCheck(() => results[runs++]?.promise ?? Promise.resolve(undefined));
  const notified: UnreadyReasons[] = [];
  health.onChange((reasons) => notified.push(reasons));
  const first = health.check();
  const second = health.check();
  results[1]?.resolve(undefined);
  assert.deepEqual(await second, []);
  results[0]?.resolve("Redis is unavailable");
  assert.deepEqual(await first, []);
  assert.deepEqual(health.current, []);
  assert.deepEqual(notified, [[]]);
});
