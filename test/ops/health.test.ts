import assert from "node:assert/strict";
import { it } from "node:test";
import { Health, type UnreadyReasons } from "../../server/ops/health.ts";

it("a look that was overtaken does not tell again what was before", async (t) => {
  const health = new Health();
  t.after(() => health.close());
  const answers = [Promise.withResolvers<string | undefined>(), Promise.withResolvers<string | undefined>()];
  let looks = 0;
  health.addCheck(() => answers[looks++]?.promise ?? Promise.resolve(undefined));
  const told: UnreadyReasons[] = [];
  health.onChange((reasons) => told.push(reasons));
  const first = health.check();
  const second = health.check();
  answers[1]?.resolve(undefined);
  assert.deepEqual(await second, []);
  answers[0]?.resolve("Redis is away");
  assert.deepEqual(await first, []);
  assert.deepEqual(health.current, []);
  assert.deepEqual(told, [[]]);
});
