import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";

const run = promisify(execFile);
const BENCH = join(import.meta.dirname, "bench.ts");

describe("npm run bench", () => {
  it("leaves out by name what this machine cannot run, and does not fail for it", async () => {
    // Without a cache there are no jars of Kafka.
    const INVENTORY_CACHE = await mkdtemp(join(tmpdir(), "inventory-bench-"));
    try {
      const env = { PATH: process.env["PATH"], INVENTORY_CACHE };
      const { stdout } = await run(process.execPath, [BENCH, "kafka"], { env });
      assert.match(stdout, /^ {2}Left out: no Kafka: /m);
      assert.match(stdout, /^Left out: kafka\. "npm run provision" installs/m);
      assert.doesNotMatch(stdout, /FAILED/i);
    } finally {
      await rm(INVENTORY_CACHE, { recursive: true, force: true });
    }
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
