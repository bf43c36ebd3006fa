import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Explorer, type Fault } from "./explorer.ts";
import { FAULTS } from "./faults.ts";
import { type BoundedScenario, SCENARIOS } from "./scenarios.ts";

// The small form: the bounds of `npm run explore` are wider.

describe("every schedule of a reservation across buckets", () => {
  for (const scenario of SCENARIOS) {
    test(scenario.name, () => {
      const { violation, isExhausted, states } = explore(scenario);
      assert.equal(violation, undefined);
      assert.ok(isExhausted && states > 100, `${states} states`);
    });
  }
});

describe("the explorer finds a seeded fault", () => {
  for (const fault of FAULTS) {
    test(`${fault.name}`, (t) => {
      const scenario = SCENARIOS.find(({ name }) => name.startsWith(fault.scenario));
      assert.ok(scenario, fault.scenario);
      const { violation } = explore(scenario, fault);
      assert.ok(violation, "No schedule breaks an invariant");
      t.diagnostic(`${violation.schedule.length} steps: ${violation.message}`);
    });
  }
});

function explore({ small, long: _, ...scenario }: BoundedScenario, fault?: Fault) {
  return new Explorer({ ...scenario, bounds: small }, fault).run();
}
