import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { it } from "node:test";
import { promisify } from "node:util";
import { AUTH_TOKENS, TOKENS } from "../access/callers.ts";
import { startTestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";

const OPERATIONS = join(import.meta.dirname, "../../docs/operations.md");
/** Defines the commands that the page uses. */
const SETTINGS = join(import.meta.dirname, "../../deploy/operator/settings.sh");
const grpcurl = need("grpcurl");
const run = promisify(execFile);

it("commands of the runbooks work as written, on a server that requires authentication", {
  skip: grpcurl.missing,
}, async () => {
  const text = await readFile(OPERATIONS, "utf8");
  const commands = text.match(/^ask .+$/gm) ?? [];
  assert.ok(commands.length >= 4);
  await using app = await startTestApp({ AUTH_TOKENS, DEMO: "on" });
  const PATH = `${dirname(grpcurl.path)}${delimiter}${process.env["PATH"]}`;
  for (const command of commands) {
    const pasted = `source ${SETTINGS}\n${command.replace("sku-1", "demo-01")}`;
    await run("bash", ["-c", pasted], { env: { PATH, OPS_TOKEN: TOKENS.ops, SERVER: app.address } });
  }
});
