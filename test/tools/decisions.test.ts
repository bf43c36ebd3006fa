import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import { findDecisionFaults } from "../../tools/decisions.ts";

const SECTIONS = "## Status\n## Context\n## Decision\n## Consequences\n## Alternatives\n";

async function faultsOf(pages: Readonly<Record<string, string>>): Promise<string[]> {
  const root = await mkdtemp(join(tmpdir(), "decisions-"));
  const folder = join(root, "docs/decisions");
  try {
    await mkdir(folder, { recursive: true });
    for (const [name, text] of Object.entries(pages)) {
      await writeFile(join(folder, name), text);
    }
    return findDecisionFaults(root);
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

it("accepts decision pages that are numbered, complete and in the index", async () => {
  const pages = {
    "README.md": "[One](0001-one.md) [Two](0002-two.md)",
    "0001-one.md": `# 1. One\n${SECTIONS}`,
    "0002-two.md": `# 2. Two\n${SECTIONS}`,
  };
  assert.deepEqual(await faultsOf(pages), []);
});

it("names a number that is missing or taken, a missing section, and a page outside the index", async () => {
  const pages = {
    "README.md": "[One](0001-one.md) [Two](0001-two.md)",
    "0001-one.md": `# 1. One\n${SECTIONS}`,
    "0001-two.md": `# 2. Two\n${SECTIONS}`,
    "0003-three.md": "# Three\n## Status\n",
  };
  assert.deepEqual(await faultsOf(pages), [
    "docs/decisions/0001-two.md must have number 2: the numbers have no gaps and no duplicates",
    'docs/decisions/0003-three.md must begin with "# 3. "',
    "docs/decisions/0003-three.md has the sections Status; they must be Status, Context, Decision, Consequences, Alternatives",
    "docs/decisions/0003-three.md is not in docs/decisions/README.md",
  ]);
});
