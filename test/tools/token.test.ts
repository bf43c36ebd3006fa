import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { ROLES } from "../../server/access/principal.ts";
import { readConfig } from "../../server/config.ts";
import { machineNode } from "../support/machine-node.ts";

const run = promisify(execFile);
const TOKEN = join(import.meta.dirname, "../../tools/token.js");
const machine = machineNode();

/** The token and the entry that it prints. */
async function makeToken(
  node: string,
  script: string,
  role: string,
): Promise<{ token: string; entry: string }> {
  const { stdout } = await run(node, [script, "orders-eu", role]);
  const [, token = "", , entry = ""] = stdout.split("\n");
  return { token, entry };
}

describe("npm run token", () => {
  it("makes a token and an entry that the service accepts, for every role", async () => {
    for (const role of ROLES) {
      const { token, entry } = await makeToken(process.execPath, TOKEN, role);
      const sha256 = createHash("sha256").update(token).digest();
      assert.deepEqual(readConfig({ AUTH_TOKENS: entry }).access?.tokens, [
        { name: "orders-eu", role, sha256 },
      ]);
      assert.notEqual(token, (await makeToken(process.execPath, TOKEN, role)).token);
    }
  });

  it("runs in a fresh clone on the machine's own Node.js", {
    skip: machine === undefined && "no other Node.js in PATH",
  }, async () => {
    const dir = await mkdtemp(join(tmpdir(), "inventory-token-"));
    try {
      const script = join(dir, "token.js");
      await copyFile(TOKEN, script);
      await writeFile(join(dir, "package.json"), '{"type":"module"}');
      const { entry } = await makeToken(machine ?? "", script, "orders");
      assert.match(entry, /^orders-eu:orders:[0-9a-f]{64}$/);
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });

  it("refuses a bad name and an unknown role, and lists the roles", async () => {
    for (const args of [
      [],
      ["orders-eu"],
      ["orders-eu", "admin"],
      ["orders eu", "orders"],
      ["a:b", "orders"],
    ]) {
      await assert.rejects(
        run(process.execPath, [TOKEN, ...args]),
        (error: { code: number; stderr: string }) => {
          assert.equal(error.code, 2);
          assert.match(error.stderr, /Usage: .*\n.*orders, supply, ops/);
          return true;
        },
      );
    }
  });
});
