import { Explorer } from "./explorer.ts";
import { SCENARIOS } from "./scenarios.ts";

const [form = "long", pattern = ""] = process.argv.slice(2);
for (const scenario of SCENARIOS.filter(({ name }) => name.includes(pattern))) {
  const started = performance.now();
  const { small, long, ...rest } = scenario;
  const found = new Explorer({ ...rest, bounds: form === "long" ? long : small }).run(
    Number(process.env["MAX"] ?? 20_000_000),
  );
  const seconds = (performance.now() - started) / 1_000;
  process.stdout.write(
    `${scenario.name}: ${found.isExhausted ? "exhausted" : "cut"} ${found.states} states, ${found.transitions} transitions, depth ${found.depth}, ${seconds.toFixed(1)} s ${Math.round(process.memoryUsage().rss / 2 ** 20)} MiB\n`,
  );
  if (found.violation) {
    process.stdout.write(
      `  ${found.violation.message}\n${found.violation.schedule.map((line, n) => `  ${n + 1}. ${line}\n`).join("")}`,
    );
  }
}
