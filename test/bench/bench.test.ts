import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { need } from "../support/programs.ts";

const run = promisify(execFile);
const BENCH = join(import.meta.dirname, "bench.ts");

describe("npm run bench", () => {
  let env: NodeJS.ProcessEnv;

  // A cache of its own has no jars of Kafka, and keeps the figures of an earlier run as they are.
  before(async () => {
    const INVENTORY_CACHE = await mkdtemp(join(tmpdir(), "inventory-bench-"));
    env = { PATH: process.env["PATH"], INVENTORY_CACHE, BENCH_ROUNDS: "1", BENCH_SECONDS: "0.1" };
  });

  after(() => rm(env["INVENTORY_CACHE"] ?? "", { recursive: true, force: true }));

  it("leaves out by name what this machine cannot run, and does not fail for it", async () => {
    const { stdout } = await run(process.execPath, [BENCH, "kafka"], { env });
    assert.match(stdout, /^ {2}Left out: no Kafka: /m);
    assert.match(stdout, /^Left out: kafka\. "node tools\/provision\.ts --bench" installs/m);
    assert.doesNotMatch(stdout, /FAILED/i);
  });

  it("prints a row with its verdict, from real servers", { skip: need("redis-server").missing }, async () => {
    const { stdout } = await run(process.execPath, [BENCH, "latency"], { env });
    assert.match(stdout, /Reserve at 70% of it \(open loop\), p99 .* ≤ 5 times +\| (met|NOT MET) /);
    const { stdout: table } = await run(process.execPath, [BENCH, "--table"], { env });
    assert.match(table, /^\| `latency` +\| Reserve at 70% .* 1 × 0\.1 s/m);
    assert.match(table, /^\| `unary` +\| not measured /m);
  });

  it("refuses an unknown name with exit code 2, and lists the known ones", async () => {
    await assert.rejects(
      run(process.execPath, [BENCH, "unray"]),
      (error: { code: number; stderr: string }) => {
        assert.equal(error.code, 2);
        assert.match(error.stderr, /unray; known are unary, json/);
        return true;
      },
    );
  });
});
