import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, it } from "node:test";
import { findViolations } from "../../tools/structure.ts";

type Tree = Readonly<Record<string, string>>;

/** A small house in which all is well. */
const TIDY: Tree = {
  "server/main.ts": 'import { start } from "./app.ts";\nstart(await import("./config.ts"));\n',
  "server/app.ts":
    'import { Redis } from "./redis/client.ts";\nimport {\n  serve,\n} from "./rpc/serve.ts";\n' +
    'import type { Feed } from "./kafka/feed.ts";\nexport const start = (): void => serve(Redis as Feed);\n',
  "server/config.ts": 'export const port = process.env["PORT"];\n',
  "server/inventory/ledger.ts": "export type Ledger = number;\n",
  "server/redis/client.ts":
    'import { Redis } from "ioredis";\nimport type { Ledger } from "../inventory/ledger.ts";\nexport { Redis, type Ledger };\n',
  "server/kafka/feed.ts": 'import type { Kafka } from "kafkajs";\nexport type Feed = Kafka;\n',
  "server/rpc/serve.ts":
    'export type { Ledger } from "../inventory/ledger.ts";\nimport { Get } from "../../gen/inventory_pb.ts";\nexport const serve = Get;\n',
  "web/page/main.ts": 'import { label } from "../view/label.ts";\nlabel();\n',
  "web/view/label.ts": "export const label = (): void => {};\n",
  "gen/inventory_pb.ts": "export const Get = (): void => {};\n",
};

async function breachesOf(changed: Tree): Promise<string[]> {
  const root = await mkdtemp(join(tmpdir(), "inventory-tidy-"));
  try {
    for (const [path, text] of Object.entries({ ...TIDY, ...changed })) {
      await mkdir(dirname(join(root, path)), { recursive: true });
      await writeFile(join(root, path), text);
    }
    return findViolations(root);
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

/** `start` of a file of the tidy tree, with more imports before it. */
const importing = (path: string, ...lines: readonly string[]): Tree => ({
  [path]: `${lines.join("\n")}\n${TIDY[path] ?? ""}`,
});

const BREACHES: readonly { readonly what: string; readonly tree: Tree; readonly told: readonly RegExp[] }[] =
  [
    {
      what: "two rooms that import each other",
      tree: importing("server/rpc/serve.ts", 'import { Redis } from "../redis/client.ts";'),
      told: [/^server\/rpc\/serve\.ts imports server\/redis\/client\.ts; server\/rpc\/ may look into/],
    },
    {
      what: "an import of types alone, over several lines",
      tree: importing("server/redis/client.ts", "import type {", "  Feed,", '} from "../kafka/feed.ts";'),
      told: [/^server\/redis\/client\.ts imports server\/kafka\/feed\.ts; /],
    },
    {
      what: "an export from another room, and an import at run time",
      tree: importing(
        "server/redis/client.ts",
        'export * from "../rpc/serve.ts";',
        'export const late = () => import("../kafka/feed.ts");',
      ),
      told: [/client\.ts imports server\/rpc\/serve\.ts/, /client\.ts imports server\/kafka\/feed\.ts/],
    },
    {
      what: "a domain that looks out",
      tree: importing("server/inventory/ledger.ts", 'import { Get } from "../../gen/inventory_pb.ts";'),
      told: [/^server\/inventory\/ledger\.ts imports gen\/inventory_pb\.ts; .* may look into nothing only/],
    },
    {
      what: "generated code outside of rpc",
      tree: importing("server/redis/client.ts", 'import { Get } from "../../gen/inventory_pb.ts";'),
      told: [/^server\/redis\/client\.ts imports gen\/inventory_pb\.ts; /],
    },
    {
      what: "a room that imports the wiring or the configuration",
      tree: importing("server/rpc/serve.ts", 'import "../app.ts";', 'import { port } from "../config.ts";'),
      told: [/serve\.ts imports server\/app\.ts/, /serve\.ts imports server\/config\.ts/],
    },
    {
      what: "a package in a room that does not own it",
      tree: importing(
        "server/rpc/serve.ts",
        'import { Redis } from "ioredis";',
        'import "kafkajs/src/x.js";',
      ),
      told: [
        /^server\/rpc\/serve\.ts imports ioredis; server\/redis\/ alone does/,
        /^server\/rpc\/serve\.ts imports kafkajs; server\/kafka\/ alone does/,
      ],
    },
    {
      what: "an owned package in the wiring",
      tree: importing("server/app.ts", 'import { Redis as Client } from "ioredis";'),
      told: [/^server\/app\.ts imports ioredis; server\/redis\/ alone does/],
    },
    {
      what: "an environment that is read outside of config.ts",
      tree: importing("server/redis/client.ts", "export const host = process.env.HOST;"),
      told: [/^server\/redis\/client\.ts reads process\.env; server\/config\.ts alone does/],
    },
    {
      what: "a file of more than 400 lines",
      tree: importing(
        "server/inventory/ledger.ts",
        ..."x"
          .repeat(400)
          .split("")
          .map((_, n) => `// ${n}`),
      ),
      told: [/^server\/inventory\/ledger\.ts has 401 lines; the most is 400/],
    },
    {
      what: "a file that nothing imports",
      tree: { "server/redis/forgotten.ts": "export {};\n", "web/view/forgotten.ts": "export {};\n" },
      told: [
        /^server\/redis\/forgotten\.ts is imported by nothing/,
        /^web\/view\/forgotten\.ts is imported by nothing/,
      ],
    },
  ];

describe("findViolations", () => {
  it("finds none in this repository", () => {
    assert.deepEqual(findViolations(join(import.meta.dirname, "../..")), []);
  });

  it("finds none in a small tree where all is well", async () => {
    assert.deepEqual(await breachesOf({}), []);
  });

  it("lets a file have 400 lines", async () => {
    const lines = Array.from({ length: 399 }, (_, n) => `// ${n}`);
    assert.deepEqual(await breachesOf(importing("server/inventory/ledger.ts", ...lines)), []);
  });

  for (const { what, tree, told } of BREACHES) {
    it(`finds ${what}`, async () => {
      const breaches = await breachesOf(tree);
      assert.equal(breaches.length, told.length, breaches.join("\n"));
      for (const expected of told) {
        assert.ok(
          breaches.some((breach) => expected.test(breach)),
          `${expected} is not in:\n${breaches.join("\n")}`,
        );
      }
    });
  }
});
