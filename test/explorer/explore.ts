import { Explorer } from "./explorer.ts";
import { SCENARIOS } from "./scenarios.ts";

// The long form of explorer.test.ts: `npm run explore`, or `npm run explore -- NAME` for the scenarios whose name has NAME.

const name = process.argv[2] ?? "";
const number = new Intl.NumberFormat("en");
for (const { small: _, long: bounds, ...scenario } of SCENARIOS) {
  if (!scenario.name.includes(name)) {
    continue;
  }
  const startMs = performance.now();
  const { states, transitions, depth, violation } = new Explorer({ ...scenario, bounds }).run();
  const seconds = Math.round((performance.now() - startMs) / 1_000);
  const { duplicates, failures, repairs, attempts } = bounds;
  process.stdout.write(
    `| ${scenario.name} | ${duplicates} | ${failures} | ${repairs} | ${attempts} | ${number.format(states)} | ${number.format(transitions)} | ${depth} | ${seconds} |\n`,
  );
  if (violation !== undefined) {
    process.exitCode = 1;
    process.stdout.write(`${violation.message}\n`);
    for (const [n, step] of violation.schedule.entries()) {
      process.stdout.write(`${n + 1}. ${step}\n`);
    }
  }
}
