import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, it } from "node:test";
import { findBrokenLinks } from "../../tools/links.ts";

/** Writes the files into a folder of their own and returns what is broken there. */
async function brokenIn(files: Readonly<Record<string, string>>): Promise<string[]> {
  const root = await mkdtemp(join(tmpdir(), "links-"));
  try {
    for (const [name, text] of Object.entries(files)) {
      await mkdir(dirname(join(root, name)), { recursive: true });
      await writeFile(join(root, name), text);
    }
    return findBrokenLinks(root);
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

describe("the check of links and file names", () => {
  it("accepts links, anchors and file names that exist", async () => {
    const broken = await brokenIn({
      "README.md":
        "[How](docs/a.md#the-first-part), `server/http/listener.ts`, `http/`, `http/*.ts`, `text/html`",
      "docs/a.md":
        "## The first part\n\n[Up](../README.md), [here](#the-first-part), `listener.ts`\n\n```\n[x](none.md)\n```\n",
      "server/http/listener.ts": "// docs/a.md#the-first-part says why.\n",
    });
    assert.deepEqual(broken, []);
  });

  it("names the page and the target that does not exist", async () => {
    const broken = await brokenIn({
      "docs/a.md": "[gone](b.md) [no anchor](#none) `http/gone.ts` `gone/`",
      "server/main.ts": "// docs/gone.md says why.\n",
    });
    assert.deepEqual(broken, [
      "docs/a.md links to b.md, which does not exist",
      "docs/a.md links to #none, which does not exist",
      "docs/a.md names `http/gone.ts`, which does not exist",
      "docs/a.md names `gone/`, which does not exist",
      "server/main.ts names docs/gone.md, which does not exist",
    ]);
  });

  it("finds a name that the file beside it does not have", async () => {
    const row = (name: string) => `| How? | \`server/http/listener.ts\` (\`${name}\`) |\n`;
    const listener = "export function startListener(): void {}\n";
    const broken = await brokenIn({
      "docs/architecture.md": row("startListener") + row("beginListener"),
      "server/http/listener.ts": listener,
    });
    assert.deepEqual(broken, [
      "docs/architecture.md names `beginListener`, which server/http/listener.ts does not have",
    ]);
  });

  it("leaves the file names of the history alone, and checks its links", async () => {
    const broken = await brokenIn({ "CHANGELOG.md": "`server/old.ts` [gone](old.md)" });
    assert.deepEqual(broken, ["CHANGELOG.md links to old.md, which does not exist"]);
  });
});
