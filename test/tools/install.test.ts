import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFile, mkdtemp, realpath, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
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
