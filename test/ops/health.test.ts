import assert from "node:assert/strict";
import { it, type TestContext } from "node:test";
import { Health } from "../../server/ops/health.ts";

type Result = string | undefined;

function newHealth(t: TestContext): Health {
  const health = new Health();
  t.after(() => health.close());
  return health;
}

it("an outdated check result does not replace a newer one", async (t) => {
  const health = newHealth(t);
  const results = [Promise.withResolvers<Result>(), Promise.withResolvers<Result>()];
  let runs = 0;
  health.addCheck("writes", () => results[runs++]?.promise ?? Promise.resolve(undefined));
  await health.check("reads");
  const notified: string[] = [];
  health.onChange(() => notified.push(health.current().join()));
  const first = health.check();
  const second = health.check();
  results[1]?.resolve(undefined);
  assert.deepEqual(await second, []);
  results[0]?.resolve("Redis is unavailable");
  assert.deepEqual(await first, []);
  assert.deepEqual(health.current(), []);
  assert.deepEqual(notified, [""]);
});

it("readiness for reads does not wait for the store, and does not depend on it", async (t) => {
  const health = newHealth(t);
  const store = Promise.withResolvers<Result>();
  health.addCheck("writes", () => store.promise);
  health.addCheck("reads", async () => undefined);
  const pending = health.check("writes");
  assert.deepEqual(await health.check("reads"), []);
  assert.deepEqual(health.current("writes"), ["The server is starting"]);
  store.resolve("Redis is unavailable");
  await pending;
  assert.deepEqual(await health.report("reads"), { ready: true, reasons: [] });
  assert.deepEqual(await health.report(), {
    ready: false,
    reasons: ["Redis is unavailable"],
    reads: { ready: true, reasons: [] },
    writes: { ready: false, reasons: ["Redis is unavailable"] },
  });
});

it("a server that drains is ready for nothing", async (t) => {
  const health = newHealth(t);
  health.addCheck("reads", async () => "The catalog is loading");
  await health.check();
  assert.deepEqual(health.current("writes"), []);
  let changes = 0;
  health.onChange(() => {
    changes += 1;
  });
  health.startDraining();
  assert.equal(changes, 1, "only the readiness for writes changed");
  assert.deepEqual(await health.check(), ["The server is shutting down", "The catalog is loading"]);
  assert.deepEqual(health.current("writes"), ["The server is shutting down"]);
});
