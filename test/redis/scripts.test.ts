import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { KINDS, operationNames, SHARED } from "../../server/redis/scripts.ts";

const FOLDER = join(import.meta.dirname, "..", "..", "server", "redis", "scripts");
/** Comments and strings. */
const NO_NAMES = /--.*$|'(?:\\.|[^'\\\n])*'/gm;
/** Declarations at the top of a part, which the parts after it may refer to. */
const AT_TOP = /^local (?:function )?([\w, ]+)/gm;
const DECLARED = /\blocal (?:function )?([\w, ]+)|\bfor ([\w, ]+) (?:in|=)/g;
const PARAMETERS = /\bfunction\b[^(]*\(([^)]*)\)/g;
/** Not a field, `.name`, nor a field of a table, `name = value`. */
const REFERRED = /(?<![.\w])[a-z_]\w*(?!\w| = )/g;

function codeOf(part: string): string {
  return readFileSync(join(FOLDER, `${part}.lua`), "utf8").replaceAll(NO_NAMES, "");
}

function names(code: string, pattern: RegExp): Set<string> {
  return new Set(
    [...code.matchAll(pattern)].flatMap(([, ...lists]) =>
      lists.flatMap((list) => list?.split(/[ ,]+/) ?? []),
    ),
  );
}

describe("the mutation script", () => {
  it("has all that its operations refer to in each kind of operations", () => {
    const everywhere = names([...SHARED, ...KINDS.flat()].map(codeOf).join("\n"), AT_TOP);
    assert.ok(everywhere.has("load_record") && everywhere.has("now_ms"));
    for (const parts of KINDS) {
      const declared = names(SHARED.map(codeOf).join("\n"), AT_TOP);
      for (const part of parts) {
        const code = codeOf(part);
        const own = names(code, DECLARED).union(names(code, PARAMETERS));
        const missing = new Set(
          [...code.matchAll(REFERRED)]
            .map(([name]) => name)
            .filter((name) => everywhere.has(name) && !declared.has(name) && !own.has(name)),
        );
        assert.deepEqual([...missing], [], `${part}.lua after ${parts.join(", ")}`);
        for (const name of names(code, AT_TOP)) declared.add(name);
      }
    }
  });

  it("has each operation once", () => {
    const all = operationNames();
    assert.deepEqual(all, [...new Set(all)]);
    assert.ok(all.includes("return") && all.includes("hold"));
  });
});
