import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { type Ledger, SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { type CliRun, cliOf, jsonLines } from "./run-cli.ts";

let app: TestApp;
let cli: ReturnType<typeof cliOf>;
let supply: ReturnType<typeof createClient<typeof SupplyService>>;
let reservations: ReturnType<typeof createClient<typeof ReservationService>>;

before(async () => {
  app = await startTestApp();
  cli = cliOf(app.url);
  const transport = createGrpcTransport({ baseUrl: app.url });
  supply = createClient(SupplyService, transport);
  reservations = createClient(ReservationService, transport);
  for (const [productId, declared] of [
    ["cmd-1", 24],
    ["cmd-2", 3],
    ["cmd-3", 0],
  ] as const) {
    const product = { name: `Mug ${productId}`, description: "", price: 14, collectionId: "kitchen" };
    await supply.putProduct({ productId, declared, product });
  }
  await supply.putProduct({ productId: "cmd-gone", declared: 1 });
  await supply.deleteProduct({ productId: "cmd-gone" });
});

after(() => app.stop());

async function ledgerOf(productId: string): Promise<Ledger> {
  const { ledger } = await supply.getLedger({ productId });
  assert.ok(ledger);
  return ledger;
}

async function reserve(reservationId: string, productId: string, quantity: number): Promise<void> {
  await reservations.reserve({ reservationId, lines: [{ productId, quantity }] });
}

describe("inventory get, search and ledger", () => {
  it("prints a table with numbers aligned to the right, and no colors on a pipe", async () => {
    const { code, stdout } = await cli.run("get", "cmd-2", "cmd-1");
    assert.equal(code, 0);
    const [header = "", second = "", first = ""] = stdout.split("\n");
    const end = header.indexOf("AVAILABLE") + "AVAILABLE".length;
    assert.match(header, /^PRODUCT {2}NAME +AVAILABLE +PRICE +COLLECTION +CHANGED$/);
    assert.deepEqual(
      [second, first].map((line) => line.slice(end - 3, end)),
      ["  3", " 24"],
    );
    assert.ok(!stdout.includes("\x1b"));
  });

  it("prints a protobuf JSON document a line, with zeros", async () => {
    const { stdout } = await cli.run("get", "cmd-3", "cmd-1", "--json");
    const stocks = jsonLines(stdout);
    assert.deepEqual(
      stocks.map(({ productId, available }) => [productId, available]),
      [
        ["cmd-3", 0],
        ["cmd-1", 24],
      ],
    );
    assert.deepEqual(stocks[0]?.["product"], {
      name: "Mug cmd-3",
      description: "",
      price: 14,
      collectionId: "kitchen",
    });
  });

  it("exits with 1 and names the products that are unknown", async () => {
    const { code, stdout, stderr } = await cli.run("get", "cmd-1", "nope");
    assert.deepEqual([code, stderr], [1, 'error: NOT_FOUND: product "nope" is unknown or deleted\n']);
    assert.match(stdout, /^cmd-1 /m);
  });

  it("escapes control characters of names, which would act on the terminal", async () => {
    const product = { name: "\x1b[2J\u009b evil \u202e", description: "", price: 1, collectionId: "" };
    await supply.putProduct({ productId: "cmd-evil", declared: 1, product });
    const { stdout } = await cli.run("search", "evil");
    assert.ok(stdout.includes("\\u001b[2J\\u009b evil \\u202e"), stdout);
    await supply.deleteProduct({ productId: "cmd-evil" });
  });

  it("shows the ledger of a deleted product", async () => {
    const { stdout } = await cli.run("ledger", "cmd-gone");
    assert.match(stdout, /^cmd-gone \(deleted\) /m);
  });
});

describe("inventory list", () => {
  it("lists low stock, one product a line", async () => {
    const { stdout } = await cli.run("list", "--low", "--json");
    assert.deepEqual(
      jsonLines(stdout).map(({ productId }) => productId),
      ["cmd-2", "cmd-3"],
    );
    const { stdout: lower } = await cli.run("list", "--low", "0");
    assert.match(lower, /^cmd-3 +Mug cmd-3 /m);
    assert.ok(!lower.includes("cmd-2"));
  });

  it("lists deleted products only where asked", async () => {
    const { stdout } = await cli.run("list", "--deleted");
    assert.match(stdout, /^cmd-gone +\(deleted\) /m);
    assert.ok(!stdout.includes("cmd-1"));
  });

  it("ends without an error when the reader closes the pipe", async () => {
    const run = cli.start("list", "--json");
    run.closeStdout();
    assert.equal(await run.exit, 0);
    assert.equal(run.stderr(), "");
  });
});

describe("inventory adjust, count and safety", () => {
  it("adjusts by a negative number, with the reason in the history", async () => {
    const { code, stdout } = await cli.run("adjust", "cmd-1", "-2", "--reason", "damaged", "--json");
    assert.equal(code, 0);
    assert.equal(jsonLines(stdout)[0]?.["onHand"], 22);
    const { stdout: history } = await cli.run("history", "cmd-1", "--limit", "1");
    assert.match(history, / adjusted +-2 +22 +0 +22 .* damaged$/m);
  });

  it("makes an adjustment with the same ID once", async () => {
    const onHand = (await ledgerOf("cmd-1")).onHand;
    for (let n = 0; n < 2; n += 1) {
      assert.equal((await cli.run("adjust", "cmd-1", "2", "--id", "cmd-delivery")).code, 0);
    }
    assert.equal((await ledgerOf("cmd-1")).onHand, onHand + 2);
  });

  it("changes nothing in a dry run", async () => {
    const { version } = await ledgerOf("cmd-1");
    const results = await Promise.all([
      cli.run("adjust", "cmd-1", "3", "--dry-run"),
      cli.run("count", "cmd-1", "3", "--dry-run"),
      cli.run("put", "cmd-1", "--price", "15", "--dry-run"),
      cli.run("delete", "cmd-1", "--dry-run"),
    ]);
    assert.deepEqual(
      results.map(({ code, stdout }) => [code, stdout]),
      [
        [0, "cmd-1: on hand 24 → 27\n"],
        [0, "cmd-1: on hand 24 → 3\n"],
        [0, "cmd-1: price 14 → 15\n"],
        [0, ""],
      ],
    );
    assert.equal((await ledgerOf("cmd-1")).version, version);
  });

  it("refuses a count that changes much without a terminal, and records it with --yes", async () => {
    const refused = await cli.run("count", "cmd-1", "2");
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, /24 units on hand\. Change that by -22, to 2\? .* confirm with --yes/);
    assert.equal((await ledgerOf("cmd-1")).onHand, 24);
    assert.equal((await cli.run("count", "cmd-1", "2", "--yes")).code, 0);
    assert.equal((await ledgerOf("cmd-1")).onHand, 2);
    assert.equal((await cli.run("count", "cmd-1", "4")).code, 0);
    const { version } = await ledgerOf("cmd-1");
    const stale = await cli.run("count", "cmd-1", "5", "--expected-version", String(version - 1n));
    assert.deepEqual([stale.code, /^error: ABORTED: /.test(stale.stderr)], [1, true], stale.stderr);
  });

  it("withholds safety stock", async () => {
    assert.equal((await cli.run("safety", "cmd-2", "1")).code, 0);
    assert.equal((await ledgerOf("cmd-2")).available, 2);
  });
});

describe("inventory put, delete and collections", () => {
  it("creates a product, and then changes only what is given", async () => {
    const created = await cli.run("put", "cmd-put", "--name", "Pan", "--price", "59", "--declared", "7");
    assert.equal(created.code, 0, created.stderr);
    assert.equal((await cli.run("put", "cmd-put", "--price", "49.5", "--collection", "kitchen")).code, 0);
    const { stdout } = await cli.run("get", "cmd-put", "--json");
    const [stock] = jsonLines(stdout);
    assert.equal(stock?.["available"], 7);
    assert.deepEqual(stock?.["product"], {
      name: "Pan",
      description: "",
      price: 49.5,
      collectionId: "kitchen",
    });
  });

  it("says what a new product needs", async () => {
    const { code, stderr } = await cli.run("put", "cmd-new", "--price", "1");
    assert.deepEqual(
      [code, stderr],
      [2, "error: The product has no details yet: give both --name and --price\n"],
    );
  });

  it("deletes only after a confirmation", async () => {
    const refused = await cli.run("delete", "cmd-put");
    assert.equal(refused.code, 2);
    assert.equal((await ledgerOf("cmd-put")).deleted, false);
    const { code, stdout } = await cli.run("delete", "cmd-put", "--yes");
    assert.deepEqual([code, stdout], [0, "cmd-put: deleted\n"]);
    assert.equal((await ledgerOf("cmd-put")).deleted, true);
  });

  it("stores and deletes collections", async () => {
    assert.equal((await cli.run("put-collection", "cmd-garden", "--name", "Garden")).code, 0);
    assert.match((await cli.run("collections")).stdout, /^cmd-garden {2}Garden$/m);
    assert.equal((await cli.run("delete-collection", "cmd-garden", "--yes")).code, 0);
    assert.equal((await cli.run("collections", "--json")).stdout, "");
  });
});

describe("inventory reservations, release and trace", () => {
  it("lists reservations by product, and releases one after a confirmation", async () => {
    await supply.putProduct({ productId: "cmd-held", declared: 9 });
    await reserve("cmd-order-1", "cmd-held", 4);
    await reserve("cmd-order-2", "cmd-2", 1);
    const { stdout } = await cli.run("reservations", "--product", "cmd-held");
    assert.match(stdout, /^cmd-order-1 +active .* 4 × cmd-held$/m);
    assert.ok(!stdout.includes("cmd-order-2"));

    const refused = await cli.run("release", "cmd-order-1");
    assert.deepEqual([refused.code, (await ledgerOf("cmd-held")).reserved], [2, 4]);
    const planned = await cli.run("release", "cmd-order-1", "--dry-run");
    assert.deepEqual([planned.code, planned.stderr], [0, "cmd-order-1: active: 4 × cmd-held\n"]);
    const released = await cli.run("release", "cmd-order-1", "--yes");
    assert.deepEqual([released.code, (await ledgerOf("cmd-held")).reserved], [0, 0]);
  });

  it("shows where an order went: its reservation and every change that it caused", async () => {
    await supply.putProduct({ productId: "cmd-trace", declared: 9 });
    await reserve("cmd-order-3", "cmd-trace", 4);
    await reservations.commitReservation({ reservationId: "cmd-order-3" });
    const { code, stdout, stderr } = await cli.run("trace", "cmd-order-3");
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^reservation +cmd-order-3\nstate +committed\nlines +4 × cmd-trace\n/);
    assert.match(stdout, / cmd-trace +reserved +-4 .*\n.* cmd-trace +committed +0 /);
    const { stdout: json } = await cli.run("trace", "cmd-order-3", "--json");
    const document = JSON.parse(json) as { reservation: { state: string }; changes: { cause: string }[] };
    assert.equal(document.reservation.state, "RESERVATION_STATE_COMMITTED");
    assert.deepEqual(
      document.changes.map(({ cause }) => cause),
      ["CHANGE_CAUSE_RESERVED", "CHANGE_CAUSE_COMMITTED"],
    );

    const returned = { productId: "cmd-trace", quantity: 1 };
    await reservations.returnReservation({
      reservationId: "cmd-order-3",
      returnId: "cmd-return-3",
      lines: [returned],
    });
    assert.match((await cli.run("trace", "cmd-order-3")).stdout, / returned +\+1 .* cmd-return-3\b/);
  });

  it("says that nothing is known of an order", async () => {
    const { code, stdout, stderr } = await cli.run("trace", "cmd-nothing");
    assert.deepEqual(
      [code, stdout, stderr],
      [
        1,
        "",
        'error: NOT_FOUND: nothing is known of "cmd-nothing"; a refused request is only in the log of the server\n',
      ],
    );
  });
});

describe("inventory watch", () => {
  it("prints each change until SIGINT, and exits with 0", async () => {
    await supply.putProduct({ productId: "cmd-watch", declared: 9 });
    const run = cli.start("watch", "cmd-watch");
    const json = cli.start("watch", "cmd-watch", "--json");
    await Promise.all([run, json].map((each) => outputHas(each, /Watching 1 product/)));
    await supply.adjustStock({ productId: "cmd-watch", delta: -2, adjustmentId: "cmd-watch-1" });
    await outputHas(run, /cmd-watch +7 +-2/);
    await outputHas(json, /"available":7/);
    for (const each of [run, json]) each.signal("SIGINT");
    assert.deepEqual(await Promise.all([run.exit, json.exit]), [0, 0]);
    const messages = jsonLines(json.stdout()) as { stocks: { available: number }[] }[];
    assert.deepEqual(
      messages.map(({ stocks }) => stocks.map(({ available }) => available)),
      [[9], [7]],
    );
  });
});

describe("a lost connection", () => {
  it("is opened again by a watch, which shows what changed meanwhile", async () => {
    await supply.putProduct({ productId: "cmd-lost", declared: 9 });
    await using proxy = await startTcpProxy({ target: { port: app.port } });
    const run = cliOf(proxy.url("http")).start("watch", "cmd-lost");
    await outputHas(run, /Watching 1 product/);
    await proxy.cut();
    await outputHas(run, /connecting again/);
    await supply.adjustStock({ productId: "cmd-lost", delta: -4, adjustmentId: "cmd-lost-1" });
    await proxy.pass();
    await outputHas(run, /cmd-lost +5 +-4/);
    run.signal("SIGINT");
    assert.equal(await run.exit, 0);
  });
});

async function outputHas(run: CliRun, pattern: RegExp): Promise<void> {
  await until(() => pattern.test(run.stdout() + run.stderr()), `the output matches ${pattern}`);
}

describe("errors of the command line", () => {
  it("is one line with code, field, value and bound, and exit code 1", async () => {
    const { code, stdout, stderr } = await cli.run("adjust", "cmd-1", "0");
    assert.deepEqual([code, stdout], [1, ""]);
    assert.match(stderr, /^error: INVALID_ARGUMENT: delta is 0; give the number of units .*\n$/);
  });

  it("exits with 2 for invalid arguments, and suggests the command that was meant", async () => {
    for (const [args, pattern] of [
      [["lst"], /unknown command 'lst'\n\(Did you mean list\?\)/],
      [["adjust", "cmd-1", "many"], /Give a whole number from -2147483647 to 2147483647/],
      [["get", "cmd-1", "--url", "localhost"], /--url is "localhost"; give an address such as/],
      [["get", "cmd-1", "--token-file", "/nowhere"], /--token-file cannot be read: .*ENOENT/],
    ] as const) {
      const { code, stderr } = await cli.run(...args);
      assert.equal(code, 2, stderr);
      assert.match(stderr, pattern);
    }
  });
});
