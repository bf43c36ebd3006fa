import { measureLiveLatency } from "./live-latency.ts";
import { measureReservationMemory } from "./reservation-memory.ts";

// npm run bench: every row of docs/benchmarks.md; npm run bench -- NAME: one of them. Nothing here passes or fails.

/** Measures one thing on servers that it starts and ends itself, and prints what it compared. */
export type Bench = (print: (line: string) => void) => Promise<void>;

const BENCHES: Readonly<Record<string, Bench>> = {
  live: measureLiveLatency,
  memory: measureReservationMemory,
};

const asked = process.argv.slice(2);
const unknown = asked.filter((name) => BENCHES[name] === undefined);
if (unknown.length > 0) {
  process.stderr.write(
    `There is no bench ${unknown.join(", ")}; there are ${Object.keys(BENCHES).join(", ")}\n`,
  );
  process.exit(2);
}
for (const [name, bench] of Object.entries(BENCHES)) {
  if (asked.length === 0 || asked.includes(name)) {
    process.stdout.write(`\n${name}\n`);
    await bench((line) => process.stdout.write(`  ${line}\n`));
  }
}
