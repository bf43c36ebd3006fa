import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { type Stock, StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { type Ledger, SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { cliOf } from "./run-cli.ts";

/** Time for an import on a busy machine, ms. */
const IMPORT_MS_MAX = 120_000;

let app: TestApp;
let dir: string;
let cli: ReturnType<typeof cliOf>;
let supply: ReturnType<typeof createClient<typeof SupplyService>>;
let stock: ReturnType<typeof createClient<typeof StockService>>;

before(async () => {
  [app, dir] = await Promise.all([startTestApp(), mkdtemp(join(tmpdir(), "inventory-import-"))]);
  cli = cliOf(app.url);
  const transport = createGrpcTransport({ baseUrl: app.url });
  supply = createClient(SupplyService, transport);
  stock = createClient(StockService, transport);
});

after(async () => {
  await app.stop();
  await rm(dir, { recursive: true, force: true });
});

async function file(name: string, text: string): Promise<string> {
  const path = join(dir, name);
  await writeFile(path, text);
  return path;
}

async function ledgerOf(productId: string): Promise<Ledger> {
  const { ledger } = await supply.getLedger({ productId });
  assert.ok(ledger);
  return ledger;
}

async function stockOf(productId: string): Promise<Stock> {
  const { stock: found } = await stock.getStock({ productId });
  assert.ok(found);
  return found;
}

/** 20 products, and a file that adjusts each of them by 1 many times. */
async function manyAdjustments(name: string, rows: number): Promise<{ path: string; productIds: string[] }> {
  const productIds = Array.from({ length: 20 }, (_, n) => `${name}-${n}`);
  await supply.batchPutProducts({ requests: productIds.map((productId) => ({ productId, declared: 0 })) });
  const lines = Array.from({ length: rows }, (_, n) => `${productIds[n % 20]},1,${name}-${n}\n`);
  return { path: await file(`${name}.csv`, `product_id,delta,adjustment_id\n${lines.join("")}`), productIds };
}

async function adjustedOf(productIds: readonly string[]): Promise<number[]> {
  const ledgers = await Promise.all(productIds.map(ledgerOf));
  return ledgers.map(({ adjusted }) => adjusted);
}

describe("inventory import of products", () => {
  it("reads a CSV file with byte order mark, CRLF, quotes and columns in any order", async () => {
    const path = await file(
      "shop.csv",
      '\uFEFFdeclared,product_id,price,name,description\r\n24,imp-1,14.5,"Mug, ""large""","two\r\nlines"\r\n3,"imp ,2",0,,\r\n',
    );
    const { code, stdout, stderr } = await cli.run("import", path);
    assert.deepEqual([code, stderr], [0, ""]);
    assert.match(stdout, /^2 rows imported, in [\d.]+ s\n$/);
    const { available, product } = await stockOf("imp-1");
    assert.deepEqual(
      [available, product?.name, product?.description, product?.price],
      [24, 'Mug, "large"', "two\r\nlines", 14.5],
    );
    assert.equal((await stockOf("imp ,2")).available, 3);
    assert.ok(!existsSync(`${path}.inventory-import`), "a complete import of products leaves no journal");
  });

  it("reports bad rows with line, column and reason, imports the others, and collects the bad ones to be fixed", async () => {
    const path = await file(
      "bad.csv",
      [
        "product_id,name,price,declared,deleted",
        "bad-1,good,1,5,",
        "bad-2,n,1x,5,",
        ",n,1,5,",
        'bad-4,"never closed,1,5,',
        "bad-5,too few",
        `bad-6,${"n".repeat(600)},1,5,`,
        "bad-1,,,,true",
        "bad-8,n,1,-1,",
        "bad-9,good,2,6,",
        "",
      ].join("\n"),
    );
    const errors = join(dir, "errors.csv");
    assert.equal((await cli.run("import", path, "--errors", path)).code, 2);
    const { code, stdout, stderr } = await cli.run("import", path, "--errors", errors, "--json");
    assert.equal(code, 1);
    const { rows, applied, failed } = JSON.parse(stdout) as Record<string, number>;
    assert.deepEqual({ rows, applied, failed }, { rows: 9, applied: 2, failed: 7 });
    assert.deepEqual(
      stderr
        .replace(/n{40,}…?/, "NAME")
        .trimEnd()
        .split("\n"),
      [
        'line 3, price: is "1x"; give a number such as 12.50',
        "line 4, product_id: is empty",
        "line 5, name: has an opening quote that is never closed",
        "line 6: has 2 cells; the header has 5",
        'line 7, name: has 600 bytes ("NAME"); the maximum is 512',
        "line 8, deleted: deletes the product; confirm deletions with --yes",
        'line 9, declared: is "-1"; give a whole number from 0 to 2147483647',
      ],
    );
    assert.equal((await stockOf("bad-9")).available, 6);

    const collected = await readFile(errors, "utf8");
    assert.match(collected, /^error_line,error_column,error,product_id,name,price,declared,deleted\r\n/);
    const unfixed = await cli.run("import", await file("unfixed.csv", collected), "--json");
    const { applied: appliedAgain, failed: failedAgain } = JSON.parse(unfixed.stdout) as Record<
      string,
      number
    >;
    assert.deepEqual({ appliedAgain, failedAgain }, { appliedAgain: 0, failedAgain: 7 });
    const fixed = collected
      .replace("bad-2,n,1x", "bad-2,n,1.5")
      .replace("is empty,,n", "is empty,bad-3,n")
      .replace('"never closed', "closed now")
      .replace("too few", "enough,1,5,")
      .replace(/n{600}/, "shorter")
      .replace(",-1,", ",1,");
    const again = await cli.run("import", await file("fixed.csv", fixed), "--yes");
    assert.deepEqual([again.code, again.stderr], [0, ""]);
    const { ledgers } = await supply.listLedgers({ pageSize: 1_000 });
    assert.deepEqual(
      ledgers.filter(({ productId }) => productId.startsWith("bad-")).map(({ productId }) => productId),
      ["bad-2", "bad-3", "bad-4", "bad-5", "bad-6", "bad-8", "bad-9"],
    );
    assert.equal((await ledgerOf("bad-1")).deleted, true);
  });

  it("names every unknown and missing column, and imports nothing", async () => {
    const { code, stderr } = await cli.pipe("Name,price,price\nx,1,1\n", "import", "-");
    assert.equal(code, 1);
    assert.match(
      stderr,
      /^error: line 1: column 1 of the header, "Name", is unknown; column price is there twice; column product_id is missing\. An import of products reads the columns product_id, name, /,
    );
  });

  it("does not overwrite what changed after the file, unless told so", async () => {
    const path = await file("old.csv", "product_id,name,price,declared\nold-1,From file,1,5\n");
    const modified = new Date(Date.now() - 60_000);
    await utimes(path, modified, modified);
    const product = { name: "Newer", price: 2, description: "", collectionId: "" };
    await supply.putProduct({ productId: "old-1", declared: 9, product });
    const first = await cli.run("import", path, "--json");
    assert.equal((JSON.parse(first.stdout) as Record<string, number>)["superseded"], 1);
    assert.equal((await ledgerOf("old-1")).declared, 9);
    assert.equal((await cli.run("import", path, "--update-time", "now")).code, 0);
    assert.deepEqual(
      [(await ledgerOf("old-1")).declared, (await stockOf("old-1")).product?.name],
      [5, "From file"],
    );
  });

  it("changes nothing when the same file is imported again", async () => {
    const path = await file(
      "twice.csv",
      "product_id,name,price,declared\ntwice-1,Mug,1,5\ntwice-1,Later row,1,7\n",
    );
    assert.equal((await cli.run("import", path)).code, 0);
    const { version, declared } = await ledgerOf("twice-1");
    assert.deepEqual([declared, (await stockOf("twice-1")).product?.name], [7, "Later row"]);
    assert.equal((await cli.run("import", path)).code, 0);
    assert.equal((await ledgerOf("twice-1")).version, version);
  });

  it("compares with the server in a dry run, and changes nothing", async () => {
    await supply.putProduct({ productId: "dry-1", declared: 5 });
    const { version } = await ledgerOf("dry-1");
    const lines = "product_id,declared\ndry-1,6\ndry-2,1\ndry-1,5\ndry-3,x\n";
    const { code, stdout } = await cli.pipe(lines, "import", "-", "--dry-run");
    assert.equal(code, 1);
    assert.deepEqual(stdout.split("\n"), [
      "line 2: change dry-1: declared 5 → 6",
      "line 3: create dry-2",
      'line 5: failed declared: is "x"; give a whole number from 0 to 2147483647',
      "Dry run, nothing was changed: 1 create, 1 change, 1 unchanged, 1 failed",
      "",
    ]);
    assert.equal((await ledgerOf("dry-1")).version, version);
    await assert.rejects(ledgerOf("dry-2"), /dry-2/);
  });

  it("reads JSON lines, and collects the bad ones with their errors", async () => {
    const good = { productId: "json-1", product: { name: "Mug", price: 3 }, declared: 4 };
    const lines = [
      JSON.stringify(good),
      '{"productId":"json-2","declared":"many"}',
      "{oops",
      '{"product_id":"json-3","declared":1}',
    ];
    const path = await file("shop.jsonl", `${lines.join("\n")}\n`);
    const errors = join(dir, "errors.jsonl");
    const { code, stderr } = await cli.run("import", path, "--errors", errors);
    assert.equal(code, 1);
    assert.match(stderr, /^line 2, declared: cannot decode field .*\nline 3: is not JSON: .*\n$/);
    assert.equal((await stockOf("json-1")).product?.name, "Mug");
    assert.equal((await ledgerOf("json-3")).declared, 1);
    const [first = "", second] = (await readFile(errors, "utf8")).split("\n");
    assert.equal(second, "{oops");
    const fixed = first.replace('"many"', "8");
    assert.equal((await cli.run("import", await file("fixed.jsonl", fixed))).code, 0);
    assert.equal((await ledgerOf("json-2")).declared, 8);
  });
});

describe("inventory import of counts and adjustments", () => {
  it("sets on hand to each count once, also when the import is repeated", async () => {
    await supply.putProduct({ productId: "count-1", declared: 10 });
    const path = await file("counts.csv", "product_id,count,reason,on_hand\ncount-1,7,annual count,10\n");
    assert.equal((await cli.run("import", path, "--counts")).code, 0);
    assert.equal((await ledgerOf("count-1")).onHand, 7);
    await supply.adjustStock({ productId: "count-1", delta: 1, adjustmentId: "count-1-later" });
    const again = await cli.run("import", path, "--counts");
    assert.deepEqual([again.code, (await ledgerOf("count-1")).onHand], [0, 8]);
    assert.match(again.stderr, /was imported at .* and nothing was done again/);
    await rm(`${path}.inventory-import`);
    assert.equal((await cli.run("import", path, "--counts")).code, 0);
    assert.equal(
      (await ledgerOf("count-1")).onHand,
      8,
      "without the journal the server knows the count by its ID",
    );
    assert.equal((await cli.run("import", path, "--counts", "--again")).code, 0);
    assert.equal((await cli.run("import", path, "--counts", "--again")).code, 0);
    assert.equal((await ledgerOf("count-1")).onHand, 7);
  });

  it("continues after SIGKILL, and adjusts nothing twice", { timeout: IMPORT_MS_MAX }, async () => {
    const { path, productIds } = await manyAdjustments("killed", 30_000);
    const journal = `${path}.inventory-import`;
    const killed = cli.start("import", path, "--adjustments");
    await until(() => existsSync(journal), "some rows are done", IMPORT_MS_MAX);
    killed.signal("SIGKILL");
    assert.equal(await killed.exit, "SIGKILL");
    const { rows } = JSON.parse(await readFile(journal, "utf8")) as { rows: number };
    assert.ok(rows >= 1_000 && rows < 30_000, `${rows} rows were done`);

    const interrupted = cli.start("import", path, "--adjustments");
    const rowsDone = async () => (JSON.parse(await readFile(journal, "utf8")) as { rows: number }).rows;
    await until(async () => (await rowsDone()) > rows, "more rows are done", IMPORT_MS_MAX);
    interrupted.signal("SIGINT");
    assert.equal(await interrupted.exit, 130);
    assert.match(
      interrupted.stderr(),
      /Continuing after .* rows .*\n(.*\n)*Interrupted after .* rows: the same command/,
    );

    const { code, stdout } = await cli.run("import", path, "--adjustments", "--json");
    assert.equal(code, 0);
    const summary = JSON.parse(stdout) as Record<string, number>;
    assert.deepEqual([summary["rows"], summary["applied"], summary["failed"]], [30_000, 30_000, 0]);
    assert.deepEqual(await adjustedOf(productIds), Array(20).fill(1_500));
  });

  it("sends a batch again whose response was lost, and adjusts nothing twice", {
    timeout: IMPORT_MS_MAX,
  }, async () => {
    const { path, productIds } = await manyAdjustments("lost", 3_000);
    await using proxy = await startTcpProxy({ target: { port: app.port } });
    const cut = proxy.cutAfterRequest((chunk) => chunk.includes("lost-1999"));
    const { code, stderr } = await cliOf(proxy.url("http")).run("import", path, "--adjustments");
    await cut;
    assert.equal(code, 0, stderr);
    assert.match(stderr, /^warning: .*; trying again$/m);
    assert.deepEqual(await adjustedOf(productIds), Array(20).fill(150));
  });

  it("makes the counts of a product in the order of the file, also over several batches", {
    skip: need("redis-server").missing,
  }, async () => {
    // With Redis, two batches in flight take turns.
    await using redis = await startRedis();
    await using other = await startTestApp({ REDIS_URL: redis.url });
    const otherSupply = createClient(SupplyService, createGrpcTransport({ baseUrl: other.url }));
    await otherSupply.putProduct({ productId: "order-1", declared: 10 });
    const lines = Array.from({ length: 1_200 }, (_, n) => `order-1,${n}\n`);
    const csv = `product_id,count\n${lines.join("")}`;
    const { code, stderr } = await cliOf(other.url).pipe(csv, "import", "-", "--counts");
    const { ledger } = await otherSupply.getLedger({ productId: "order-1" });
    assert.deepEqual([code, ledger?.onHand], [0, 1_199], stderr);
  });

  it("needs an ID for each adjustment", async () => {
    const { code, stderr } = await cli.pipe("product_id,delta\nx,1\n", "import", "-", "--adjustments");
    assert.deepEqual([code, /column adjustment_id is missing/.test(stderr)], [1, true], stderr);
  });
});

describe("inventory export", () => {
  it("writes what import accepts: the catalog arrives on another server as it was", {
    timeout: IMPORT_MS_MAX,
  }, async () => {
    const texts = [
      "plain",
      '=HYPERLINK("x")',
      "'=quoted",
      "-1",
      'two\nlines, "quoted"',
      "@risk",
      " spaces ",
      "naïve 日本 😀",
    ];
    const requests = texts.map((name, n) => ({
      productId: n === 0 ? "=round-0" : `round-${n}`,
      declared: n,
      product: { name, description: name, price: n / 3, collectionId: "round" },
    }));
    await supply.batchPutProducts({ requests });
    await using other = await startTestApp();
    const otherCli = cliOf(other.url);
    const copies: string[] = [];
    for (const name of ["round.csv", "round.jsonl"]) {
      const path = join(dir, name);
      const exported = await cli.run("export", path, "--collection", "round");
      assert.deepEqual([exported.code, exported.stderr], [0, "Exported 8 products\n"]);
      const imported = await otherCli.run("import", path);
      assert.deepEqual([imported.code, imported.stderr], [0, ""]);
      const { stdout } = await otherCli.run("export", "-", "--format", "jsonl", "--collection", "round");
      copies.push(stdout);
    }
    const expected = requests.map(({ productId, declared, product }) => ({ productId, product, declared }));
    for (const copy of copies) {
      const products = copy
        .trim()
        .split("\n")
        .map((line) => {
          const { ledger: _ledger, ...product } = JSON.parse(line) as Record<string, unknown>;
          return product;
        });
      assert.deepEqual(products, expected);
    }
    const csv = await readFile(join(dir, "round.csv"), "utf8");
    assert.match(csv, /^'=round-0,plain,plain,0,round,0,,/m);
    assert.match(csv, /^round-1,"'=HYPERLINK\(""x""\)"/m);
  });

  it("keeps the filters, and replaces a file only after a confirmation", async () => {
    const path = join(dir, "low.csv");
    assert.equal((await cli.run("export", path, "--collection", "round", "--low", "1")).code, 0);
    const text = await readFile(path, "utf8");
    assert.deepEqual(
      text
        .trim()
        .split("\r\n")
        .map((line) => line.split(",")[0]),
      ["product_id", "'=round-0", "round-1"],
    );
    const refused = await cli.run("export", path);
    assert.deepEqual([refused.code, await readFile(path, "utf8")], [2, text]);
    assert.equal((await cli.run("export", path, "--yes", "--deleted")).code, 0);
    assert.match(await readFile(path, "utf8"), /^bad-1,,,,,,true,/m);
  });
});
