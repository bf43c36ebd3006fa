import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";

const ROOT = join(import.meta.dirname, "../..");
const run = promisify(execFile);

describe("buf breaking against the protos of the last release", () => {
  let dir: string;
  let baseline: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "inventory-protos-"));
    const [newest] = (await readdir(join(ROOT, "tools"))).filter((name) => name.endsWith(".binpb"));
    baseline = join(ROOT, "tools", newest ?? "");
    await cp(join(ROOT, "proto"), join(dir, "proto"), { recursive: true });
    await cp(join(ROOT, "buf.yaml"), join(dir, "buf.yaml"));
  });
  after(() => rm(dir, { recursive: true, force: true }));

  /** The findings, or an empty text. */
  async function findings(): Promise<string> {
    const buf = join(ROOT, "node_modules/.bin/buf");
    return await run(buf, ["breaking", "--against", baseline], { cwd: dir }).then(
      () => "",
      ({ stdout, stderr }: { stdout: string; stderr: string }) => stdout + stderr,
    );
  }

  it("accepts the protos as they are", async () => {
    assert.equal(await findings(), "");
  });

  it("finds a changed field number", async () => {
    const path = join(dir, "proto/inventory/v1/supply.proto");
    const text = await readFile(path, "utf8");
    const changed = text.replace(/^( {2}int\d+ declared = )\d+;/m, "$1999;");
    assert.notEqual(changed, text);
    await writeFile(path, changed);
    assert.match(await findings(), /supply\.proto:.*"declared"/);
  });
});
