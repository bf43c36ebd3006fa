import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFile, mkdtemp, realpath, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { machineNode } from "../support/machine-node.ts";
import { findProgram } from "../support/programs.ts";

const ROOT = join(import.meta.dirname, "../..");
const run = promisify(execFile);
const npm = findProgram("npm");
const node = machineNode();

describe("npm ci on the machine's own Node.js", {
  skip: (npm === undefined && "no npm") || (node === undefined && "no other Node.js in PATH"),
}, () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "inventory-install-"));
    for (const file of ["package.json", "package-lock.json", ".npmrc"]) {
      await copyFile(join(ROOT, file), join(dir, file));
    }
  });
  after(() => rm(dir, { recursive: true, force: true }));

  /** What `npm ci` prints on standard error, without installing anything. */
  async function stderrOf(): Promise<string> {
    const script = await realpath(npm ?? "");
    const options = { cwd: dir, env: { PATH: dirname(node ?? ""), HOME: dir } };
    return await run(node ?? "", [script, "ci", "--dry-run", "--offline"], options).then(
      ({ stderr }) => stderr,
      ({ stderr }: { stderr: string }) => stderr,
    );
  }

  it("prints no warnings", async () => {
    assert.equal(await stderrOf(), "");
  });

  it("prints an error, such as a missing lock file", async () => {
    await rm(join(dir, "package-lock.json"));
    assert.match(await stderrOf(), /npm error .*package-lock\.json/);
  });
});

describe("npx inventory on the machine's own Node.js", {
  skip: (npm === undefined && "no npm") || (node === undefined && "no other Node.js in PATH"),
}, () => {
  it("runs the checkout's command line on the pinned Node.js, also in a folder below", async () => {
    const npx = join(dirname(await realpath(npm ?? "")), "npx-cli.js");
    const command = ["--offline", "inventory", "get", "x", "--url", "http://127.0.0.1:1"];
    const env = { ...process.env, PATH: [dirname(node ?? ""), "/usr/bin", "/bin"].join(delimiter) };
    const cwd = join(ROOT, "docs");
    await assert.rejects(run(node ?? "", [npx, ...command], { cwd, env }), ({ stderr, code }) => {
      assert.match(stderr, /^error: UNAVAILABLE: http:\/\/127\.0\.0\.1:1 cannot be reached/);
      assert.equal(code, 3);
      return true;
    });
    // The first of PATH is what "env node" in the first line of cli/main.ts finds.
    const { stdout } = await run(node ?? "", [npx, "--offline", "-c", "node --version"], { cwd, env });
    assert.equal(stdout.trim(), process.version);
  });
});
