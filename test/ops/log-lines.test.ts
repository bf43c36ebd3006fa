import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { it } from "node:test";

const root = join(import.meta.dirname, "../..");

it("every message in the operations page's table of log lines is one that the server logs", async () => {
  const page = await readFile(join(root, "docs/operations.md"), "utf8");
  const table = page.slice(page.indexOf("| line | what to do |"), page.indexOf("### Traces"));
  const cells = [...table.matchAll(/^\| (`.+?`) \|/gm)].map(([, cell = ""]) => cell);
  const messages = cells.flatMap((cell) =>
    [...cell.matchAll(/`([^`]+)`/g)].map(([, message = ""]) => message),
  );
  const files = (await readdir(join(root, "server"), { recursive: true })).filter((name) =>
    name.endsWith(".ts"),
  );
  const sources = await Promise.all(files.map((name) => readFile(join(root, "server", name), "utf8")));
  const code = sources.join("\n");
  assert.ok(messages.length >= 15);
  assert.deepEqual(
    messages.filter((message) => !isLogged(message, code)),
    [],
  );
});

/** Whether the code has the message. An ellipsis in it stands for what the code inserts. */
function isLogged(message: string, code: string): boolean {
  return message.includes("…")
    ? message.split("…").every((part) => code.includes(part))
    : code.includes(`"${message}"`);
}
