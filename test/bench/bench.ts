import { availableParallelism, cpus, release } from "node:os";
import { measureBatch } from "./batch.ts";
import { type Bench, type BenchContext, ProgramMissing } from "./bench-context.ts";
import { measureBulk } from "./bulk.ts";
import { measureCluster } from "./cluster.ts";
import { measureFanOut } from "./fanout.ts";
import { keepFigures, keptTable } from "./figures.ts";
import { measureJson } from "./json.ts";
import { measureKafka } from "./kafka.ts";
import { measureLatency } from "./latency.ts";
import { measureLedgers } from "./ledgers.ts";
import { measureLive } from "./live.ts";
import { measureReservationMemory } from "./memory.ts";
import { type Line, lineOf, tableOf } from "./outcome.ts";
import { measurePostgres } from "./postgres.ts";
import { CORES } from "./processes.ts";
import { measureReserve } from "./reserve.ts";
import { measureSale } from "./sale.ts";
import { measureScale } from "./scale.ts";
import { measureStream } from "./stream.ts";
import { measureUnary } from "./unary.ts";

// npm run bench: every row of docs/benchmarks.md; npm run bench -- NAME …: some of them; npm run bench -- --table: the last
// figures of all rows. A missed target is not a failure. BENCH_ROUNDS (5) and BENCH_SECONDS (2) set its length.

const BENCHES: Readonly<Record<string, Bench>> = {
  unary: measureUnary,
  json: measureJson,
  batch: measureBatch,
  bulk: measureBulk,
  reserve: measureReserve,
  postgres: measurePostgres,
  latency: measureLatency,
  sale: measureSale,
  cluster: measureCluster,
  fanout: measureFanOut,
  live: measureLive,
  kafka: measureKafka,
  stream: measureStream,
  scale: measureScale,
  memory: measureReservationMemory,
  ledgers: measureLedgers,
};

const asked = process.argv.slice(2);
if (asked.includes("--table")) {
  process.stdout.write(`${await keptTable(Object.keys(BENCHES))}\n`);
  process.exit();
}
const unknown = asked.filter((name) => BENCHES[name] === undefined);
if (unknown.length > 0) {
  process.stderr.write(
    `Unknown benchmark ${unknown.join(", ")}; known are ${Object.keys(BENCHES).join(", ")}\n`,
  );
  process.exit(2);
}

const ending = new AbortController();
process.on("SIGINT", () => {
  if (ending.signal.aborted) {
    process.exit(130);
  }
  process.stderr.write("\nStopping; Ctrl-C again exits at once\n");
  ending.abort(new Error("Interrupted"));
});

const machine = {
  time: new Date().toISOString(),
  cores: `${availableParallelism()} of ${cpus()[0]?.model ?? "an unknown processor"}`,
  pinned: CORES === undefined ? "nothing" : "servers to one core, load generators and Redis to another",
  system: `${process.platform} ${release()}`,
  node: process.version,
};
const context: BenchContext = {
  rounds: numberFrom("BENCH_ROUNDS", 5),
  seconds: numberFrom("BENCH_SECONDS", 2),
  signal: ending.signal,
  note: (line) => process.stdout.write(`  ${line}\n`),
};
process.stdout.write(`${Object.values(machine).join("; ")}; ${context.rounds} rounds\n`);

const kept: Record<string, readonly Line[]> = {};
const failed: string[] = [];
const leftOut: string[] = [];
for (const [name, bench] of Object.entries(BENCHES)) {
  if (ending.signal.aborted || (asked.length > 0 && !asked.includes(name))) {
    continue;
  }
  const startedAt = performance.now();
  process.stdout.write(`\n${name}\n`);
  try {
    const lines = (await bench(context)).map(lineOf);
    kept[name] = lines;
    await keepFigures(name, { machine, rounds: context.rounds, seconds: context.seconds, lines });
    const seconds = Math.round((performance.now() - startedAt) / 1_000);
    process.stdout.write(`\n${tableOf(lines)}\n\n  ${seconds} s\n`);
  } catch (error) {
    if (error instanceof ProgramMissing) {
      leftOut.push(name);
      process.stdout.write(`  Left out: ${error.message}\n`);
      continue;
    }
    failed.push(name);
    process.stdout.write(`  FAILED: ${error instanceof Error ? error.message : String(error)}\n`);
  }
}

if (Object.keys(kept).length > 1) {
  process.stdout.write(`\n${tableOf(Object.values(kept).flat())}\n`);
}
if (leftOut.length > 0) {
  process.stdout.write(
    `\nLeft out: ${leftOut.join(", ")}. "node tools/provision.ts --bench" installs what they need where it can.\n`,
  );
}
if (failed.length > 0) {
  process.stdout.write(`\nFailed: ${failed.join(", ")}\n`);
  process.exitCode = 1;
}

function numberFrom(name: string, fallback: number): number {
  const value = Number(process.env[name] ?? fallback);
  if (!(value > 0)) {
    throw new RangeError(`${name} is ${JSON.stringify(process.env[name])}; it must be a number above 0`);
  }
  return value;
}
