import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, it } from "node:test";
import { findViolations } from "../../tools/structure.ts";

type Tree = Readonly<Record<string, string>>;

/** A small tree without violations. */
const VALID: Tree = {
  "docs/architecture.md":
    "# Architecture\n\n| folder | holds | may import |\n|---|---|---|\n" +
    "| `inventory/` | the domain | nothing |\n" +
    "| `redis/` | the store; not `kafka/` | `inventory/` |\n" +
    "| `kafka/` | events | `inventory/` |\n" +
    "| `rpc/` | how a call runs | `inventory/`, `kafka/`, `gen/` |\n" +
    "| `cli/` | the command line | `gen/` |\n\n" +
    "| other | table |\n|---|---|\n| `redis/` | `rpc/` |\n",
  "server/main.ts": 'import { start } from "./app.ts";\nstart(await import("./config.ts"));\n',
  "server/app.ts":
    'import { Redis } from "./redis/client.ts";\nimport {\n  serve,\n} from "./rpc/serve.ts";\n' +
    'import type { Feed } from "./kafka/kafkajs/feed.ts";\nexport const start = (): void => serve(Redis as Feed);\n',
  "server/config.ts": 'export const port = process.env["PORT"];\n',
  "server/inventory/ledger.ts": "export type Ledger = number;\n",
  "server/redis/client.ts":
    'import { Redis } from "ioredis";\nimport type { Ledger } from "../inventory/ledger.ts";\nexport { Redis, type Ledger };\n',
  "server/kafka/kafkajs/feed.ts": 'import type { Kafka } from "kafkajs";\nexport type Feed = Kafka;\n',
  "server/rpc/serve.ts":
    'export type { Ledger } from "../inventory/ledger.ts";\nimport { Get } from "../../gen/inventory_pb.ts";\nexport const serve = Get;\n',
  "web/page/main.ts": 'import { label } from "../view/label.ts";\nlabel();\n',
  "web/view/label.ts": "export const label = (): void => {};\n",
  "cli/main.ts": 'import { get } from "./commands/get.ts";\nget();\n',
  "cli/commands/get.ts": 'export { Get as get } from "../../gen/inventory_pb.ts";\n',
  "gen/inventory_pb.ts": "export const Get = (): void => {};\n",
};

async function violationsOf(changed: Tree): Promise<string[]> {
  const root = await mkdtemp(join(tmpdir(), "inventory-structure-"));
  try {
    for (const [path, text] of Object.entries({ ...VALID, ...changed })) {
      await mkdir(dirname(join(root, path)), { recursive: true });
      await writeFile(join(root, path), text);
    }
    return findViolations(root);
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

/** A file of the valid tree, with these lines before its own. */
const prepend = (path: string, ...lines: readonly string[]): Tree => ({
  [path]: `${lines.join("\n")}\n${VALID[path] ?? ""}`,
});

const VIOLATIONS: readonly {
  readonly what: string;
  readonly tree: Tree;
  readonly expected: readonly RegExp[];
}[] = [
  {
    what: "an import that the table does not have",
    tree: prepend("server/rpc/serve.ts", 'import { Redis } from "../redis/client.ts";'),
    expected: [
      /^server\/rpc\/serve\.ts imports server\/redis\/client\.ts; docs\/architecture\.md allows server\/rpc\/ inventory, kafka, gen$/,
    ],
  },
  {
    what: "an import against the direction of the table, and the cycle that it closes",
    tree: {
      ...prepend("server/rpc/serve.ts", 'import "../kafka/feed.ts";'),
      ...prepend("server/kafka/feed.ts", 'import { serve } from "../rpc/serve.ts";'),
    },
    expected: [
      /^server\/kafka\/feed\.ts imports server\/rpc\/serve\.ts; docs\/architecture\.md allows server\/kafka\/ inventory$/,
      /^Import cycle: server\/(rpc\/serve|kafka\/feed)\.ts → server\/(rpc\/serve|kafka\/feed)\.ts → /,
    ],
  },
  {
    what: "an import of types only, over several lines",
    tree: prepend("server/redis/client.ts", "import type {", "  Feed,", '} from "../kafka/feed.ts";'),
    expected: [/^server\/redis\/client\.ts imports server\/kafka\/feed\.ts; /],
  },
  {
    what: "an export from another folder, and an import at run time",
    tree: prepend(
      "server/redis/client.ts",
      'export * from "../rpc/serve.ts";',
      'export const late = () => import("../kafka/feed.ts");',
    ),
    expected: [/client\.ts imports server\/rpc\/serve\.ts/, /client\.ts imports server\/kafka\/feed\.ts/],
  },
  {
    what: "a domain that imports anything",
    tree: prepend("server/inventory/ledger.ts", 'import { Get } from "../../gen/inventory_pb.ts";'),
    expected: [
      /^server\/inventory\/ledger\.ts imports gen\/inventory_pb\.ts; .* server\/inventory\/ nothing$/,
    ],
  },
  {
    what: "generated code in a folder that may not import it",
    tree: prepend("server/redis/client.ts", 'import { Get } from "../../gen/inventory_pb.ts";'),
    expected: [/^server\/redis\/client\.ts imports gen\/inventory_pb\.ts; /],
  },
  {
    what: "a folder that the table does not have",
    tree: {
      "server/cache/lru.ts": 'import "../inventory/ledger.ts";\n',
      ...prepend("server/app.ts", 'import "./cache/lru.ts";'),
    },
    expected: [/^server\/cache\/lru\.ts imports server\/inventory\/ledger\.ts; .* server\/cache\/ nothing$/],
  },
  {
    what: "a command line that imports the server, or reads the environment elsewhere than in its settings",
    tree: prepend(
      "cli/commands/get.ts",
      'import type { Ledger } from "../../server/inventory/ledger.ts";',
      "export const url = process.env.INVENTORY_URL;",
    ),
    expected: [
      /^cli\/commands\/get\.ts imports server\/inventory\/ledger\.ts; docs\/architecture\.md allows cli\/ gen$/,
      /^cli\/commands\/get\.ts reads process\.env; only server\/config\.ts and cli\/settings\.ts may$/,
    ],
  },
  {
    what: "a folder that imports the configuration",
    tree: prepend("server/rpc/serve.ts", 'import { port } from "../config.ts";'),
    expected: [/serve\.ts imports server\/config\.ts/],
  },
  {
    what: "an import cycle of two files in one folder",
    tree: {
      ...prepend("server/redis/client.ts", 'import "./keys.ts";'),
      "server/redis/keys.ts": 'import { Redis } from "./client.ts";\nexport const keys = Redis;\n',
    },
    expected: [
      /^Import cycle: server\/redis\/(client|keys)\.ts → server\/redis\/(keys|client)\.ts → server\/redis\/(client|keys)\.ts$/,
    ],
  },
  {
    what: "an import cycle of types only",
    tree: {
      ...prepend("server/redis/client.ts", 'import type { Keys } from "./keys.ts";'),
      "server/redis/keys.ts": 'import type { Redis } from "./client.ts";\nexport type Keys = Redis;\n',
    },
    expected: [/^Import cycle: server\/redis\/(client|keys)\.ts → server\/redis\/(keys|client)\.ts → /],
  },
  {
    what: "an import cycle of three files of web/",
    tree: {
      ...prepend("web/view/label.ts", 'import "./price.ts";'),
      "web/view/price.ts": 'import "./count.ts";\n',
      "web/view/count.ts": 'import "./label.ts";\n',
    },
    expected: [/^Import cycle: (web\/view\/\w+\.ts → ){3}web\/view\/\w+\.ts$/],
  },
  {
    what: "a package in a folder that does not own it",
    tree: prepend("server/rpc/serve.ts", 'import { Redis } from "ioredis";', 'import "kafkajs/src/x.js";'),
    expected: [
      /^server\/rpc\/serve\.ts imports ioredis; only server\/redis\/ may$/,
      /^server\/rpc\/serve\.ts imports kafkajs; only server\/kafka\/kafkajs\/ may$/,
    ],
  },
  {
    what: "a package in the folder above the one that owns it",
    tree: {
      ...prepend("server/app.ts", 'import "./kafka/reader.ts";'),
      "server/kafka/reader.ts": 'import type { Kafka } from "kafkajs";\nexport type Reader = Kafka;\n',
    },
    expected: [/^server\/kafka\/reader\.ts imports kafkajs; only server\/kafka\/kafkajs\/ may$/],
  },
  {
    what: "an owned package in the wiring",
    tree: prepend("server/app.ts", 'import { Redis as Client } from "ioredis";'),
    expected: [/^server\/app\.ts imports ioredis; only server\/redis\/ may$/],
  },
  {
    what: "a file other than config.ts that reads the environment",
    tree: prepend("server/redis/client.ts", "export const host = process.env.HOST;"),
    expected: [
      /^server\/redis\/client\.ts reads process\.env; only server\/config\.ts and cli\/settings\.ts may$/,
    ],
  },
  {
    what: "a file of more than 400 lines",
    tree: prepend("server/inventory/ledger.ts", ...Array.from({ length: 400 }, (_, n) => `// ${n}`)),
    expected: [/^server\/inventory\/ledger\.ts has 401 lines; at most 400 are allowed/],
  },
  {
    what: "a file that nothing imports",
    tree: { "server/redis/unused.ts": "export {};\n", "web/view/unused.ts": "export {};\n" },
    expected: [
      /^server\/redis\/unused\.ts is imported by nothing/,
      /^web\/view\/unused\.ts is imported by nothing/,
    ],
  },
];

describe("findViolations", () => {
  it("finds none in this repository", () => {
    assert.deepEqual(findViolations(join(import.meta.dirname, "../..")), []);
  });

  it("finds none in a valid tree", async () => {
    assert.deepEqual(await violationsOf({}), []);
  });

  it("allows a file of 400 lines", async () => {
    const lines = Array.from({ length: 399 }, (_, n) => `// ${n}`);
    assert.deepEqual(await violationsOf(prepend("server/inventory/ledger.ts", ...lines)), []);
  });

  for (const { what, tree, expected } of VIOLATIONS) {
    it(`finds ${what}`, async () => {
      const violations = await violationsOf(tree);
      assert.equal(violations.length, expected.length, violations.join("\n"));
      for (const pattern of expected) {
        assert.ok(
          violations.some((violation) => pattern.test(violation)),
          `${pattern} is not in:\n${violations.join("\n")}`,
        );
      }
    });
  }

  it("counts a file that a worker thread runs as imported, and checks it", async () => {
    const startWorker = (file: string) =>
      prepend("server/redis/client.ts", `new Worker(new URL("${file}", import.meta.url), {});`);
    const worker = { "server/redis/worker.ts": 'import { Redis } from "./client.ts";\nRedis;\n' };
    assert.deepEqual(await violationsOf({ ...startWorker("./worker.ts"), ...worker }), []);
    const violations = await violationsOf(startWorker("../kafka/feed.ts"));
    assert.match(violations.join(), /^server\/redis\/client\.ts imports server\/kafka\/feed\.ts/);
  });

  it("throws where docs/architecture.md has no such table", async () => {
    await assert.rejects(violationsOf({ "docs/architecture.md": "# Architecture\n" }), /no table/);
  });
});
