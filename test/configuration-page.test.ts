import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { it } from "node:test";
import { VARIABLES } from "../server/config.ts";

it("docs/configuration.md describes every variable, and no other", async () => {
  const page = await readFile(join(import.meta.dirname, "../docs/configuration.md"), "utf8");
  const rows = [...page.matchAll(/^\| (`.+?`) \|/gm)].flatMap(([, cell = ""]) => cell.split(", "));
  const described = rows.map((name) => name.replaceAll("`", ""));
  assert.deepEqual(described.toSorted(), VARIABLES.toSorted());
});
