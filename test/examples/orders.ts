import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, it } from "node:test";
import { type Client, createClient } from "@connectrpc/connect";
import { ReservationService, ReservationState } from "../../gen/inventory/v1/reservation_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { type GrpcJsTransport, grpcJsTransport } from "../support/grpc-js-transport.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { scrape } from "../support/scrape.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { notChosen, type Output, run } from "./example.ts";

/** An example of Orders, in whatever language. */
export interface OrdersExample {
  readonly name: string;
  /** Generates and compiles what it needs, and returns the command to which arguments are appended. */
  readonly prepare: () => Promise<readonly string[]>;
}

/** Each run of a program takes half a second of CPU time: `npm test` runs the essential ones. */
const long = { skip: notChosen };

/** One outcome that the program prints as a line of JSON. */
interface Printed {
  readonly outcome: string;
  readonly orderId?: string;
  readonly revived?: boolean;
  readonly short?: readonly { productId: string; requested: number; available: number }[];
  readonly code?: string;
  readonly violations?: readonly string[];
}

/** The same tests for every language: what a shopper sees, and what the ledger has afterwards. */
export function testOrders({ name, prepare }: OrdersExample): void {
  let redis: RedisServer;
  let toRedis: TcpProxy;
  let app: TestApp;
  let toApp: TcpProxy;
  let transport: GrpcJsTransport;
  let supply: Client<typeof SupplyService>;
  let reservations: Client<typeof ReservationService>;
  let command: readonly string[];
  let dir: string;

  before(async () => {
    command = await prepare();
    dir = await mkdtemp(join(tmpdir(), "inventory-orders-"));
    redis = await startRedis({ appendonly: "no" });
    toRedis = await startTcpProxy({ target: { port: redis.port } });
    app = await startTestApp({ REDIS_URL: toRedis.url("redis"), ADMIN_PORT: "0" });
    // Only from the request on: grpc-go sends none before it has the server's settings.
    toApp = await startTcpProxy({ target: { port: app.port }, affects: (chunk) => chunk.includes("lost-1") });
    transport = grpcJsTransport(app.address);
    supply = createClient(SupplyService, transport);
    reservations = createClient(ReservationService, transport);
  });
  after(async () => {
    transport?.[Symbol.dispose]();
    await toApp?.close();
    await app?.stop();
    await toRedis?.close();
    await redis?.[Symbol.asyncDispose]();
    await rm(dir, { recursive: true, force: true });
  });

  function start(...args: string[]): Promise<Output> {
    return run(name, [...command, ...args], { INVENTORY_URL: toApp.url("http"), SHOP_DIR: dir });
  }

  async function outcomesOf(...args: string[]): Promise<Printed[]> {
    const { stdout, stderr } = await start(...args);
    const lines = stdout.split("\n").filter((line) => line !== "");
    assert.notEqual(lines.length, 0, `${args.join(" ")} printed nothing: ${stderr}`);
    return lines.map((line) => JSON.parse(line));
  }

  async function outcomeOf(...args: string[]): Promise<Printed> {
    const [printed] = await outcomesOf(...args);
    assert.ok(printed);
    return printed;
  }

  const put = (productId: string, declared: number) => supply.putProduct({ productId, declared });

  async function ledgerOf(productId: string) {
    const { ledger } = await supply.getLedger({ productId });
    assert.ok(ledger);
    const { sold, reserved, available } = ledger;
    return { sold, reserved, available };
  }

  async function stateOf(reservationId: string): Promise<ReservationState | undefined> {
    const { reservation } = await reservations.getReservation({ reservationId });
    return reservation?.state;
  }

  /** How many calls of Reserve ended with this code. */
  async function reservesWith(code: string): Promise<number> {
    const labels = { grpc_method: "Reserve", grpc_code: code };
    return (await scrape(app.adminUrl)).value("grpc_server_handled_total", labels) ?? 0;
  }

  it("sells what was paid, and a repeated checkout sells nothing more", async () => {
    await put("sold", 5);
    await put("sold-too", 5);
    for (let n = 0; n < 2; n++) {
      const printed = await outcomeOf("checkout", "sold-1", "sold:2", "sold-too:1");
      assert.deepEqual(printed, { outcome: "shipped", revived: false });
    }
    assert.equal(await stateOf("sold-1"), ReservationState.COMMITTED);
    assert.deepEqual(await ledgerOf("sold"), { sold: 2, reserved: 0, available: 3 });
    assert.deepEqual(await ledgerOf("sold-too"), { sold: 1, reserved: 0, available: 4 });
  });

  it("shows which lines are short, and holds and charges nothing", async () => {
    await put("short", 1);
    await put("short-not", 5);
    assert.deepEqual(await outcomeOf("checkout", "short-1", "short:2", "short-not:1"), {
      outcome: "sold_out",
      short: [{ productId: "short", requested: 2, available: 1 }],
    });
    assert.deepEqual(await ledgerOf("short-not"), { sold: 0, reserved: 0, available: 5 });
  });

  it("refuses an unknown product", long, async () => {
    assert.equal((await outcomeOf("checkout", "unknown-1", "no-such-product:1")).outcome, "unknown_product");
  });

  it("returns the units of a declined card", long, async () => {
    await put("declined", 5);
    const printed = await outcomeOf("checkout", "--card", "declined", "declined-1", "declined:2");
    assert.deepEqual(printed, { outcome: "declined" });
    assert.equal(await stateOf("declined-1"), ReservationState.RELEASED);
    assert.deepEqual(await ledgerOf("declined"), { sold: 0, reserved: 0, available: 5 });
  });

  it("does not sell an order that was cancelled before, and takes back one that was sold", long, async () => {
    await put("cancelled", 5);
    assert.deepEqual(await outcomeOf("cancel", "cancelled-1"), { outcome: "cancelled" });
    assert.deepEqual(await outcomeOf("checkout", "cancelled-1", "cancelled:1"), { outcome: "cancelled" });
    assert.equal((await outcomeOf("checkout", "cancelled-2", "cancelled:2")).outcome, "shipped");
    for (let n = 0; n < 2; n++) {
      assert.deepEqual(await outcomeOf("cancel", "cancelled-2"), { outcome: "cancelled" });
    }
    assert.deepEqual(await outcomeOf("checkout", "cancelled-2", "cancelled:2"), { outcome: "cancelled" });
    assert.deepEqual(await ledgerOf("cancelled"), { sold: 0, reserved: 0, available: 5 });
  });

  it("reports a reused ID and an invalid quantity as bugs", long, async () => {
    await put("bugs", 5);
    assert.equal((await outcomeOf("checkout", "bugs-1", "bugs:1")).outcome, "shipped");
    const reused = await outcomeOf("checkout", "bugs-1", "bugs:2");
    assert.deepEqual([reused.outcome, reused.code], ["bug", "AlreadyExists"]);
    const invalid = await outcomeOf("checkout", "bugs-2", "bugs:0");
    assert.deepEqual([invalid.outcome, invalid.code], ["bug", "InvalidArgument"]);
    assert.match(invalid.violations?.join() ?? "", /^lines\[0\]\.quantity is 0/);
    assert.deepEqual(await ledgerOf("bugs"), { sold: 1, reserved: 0, available: 4 });
  });

  it("does not charge a shopper whose reservation has expired", long, async () => {
    await put("late", 5);
    const args = ["--ttl-ms", "1000", "--pause-ms", "1500", "late-1", "late:1"];
    assert.deepEqual(await outcomeOf("checkout", ...args), { outcome: "expired" });
    await until(async () => (await stateOf("late-1")) === ReservationState.EXPIRED, "it is expired");
    assert.deepEqual(await ledgerOf("late"), { sold: 0, reserved: 0, available: 5 });
  });

  it("repeats a call whose response was lost under the same ID", async () => {
    await put("lost", 5);
    const before = await reservesWith("OK");
    await toApp.dropReplies();
    const checkout = outcomeOf("checkout", "lost-1", "lost:2");
    await until(
      async () => (await reservesWith("OK")) >= before + 2,
      "the call was repeated after its deadline",
    );
    await toApp.pass();
    assert.deepEqual(await checkout, { outcome: "shipped", revived: false });
    assert.deepEqual(await ledgerOf("lost"), { sold: 2, reserved: 0, available: 3 });
  });

  it("waits as long as RetryInfo asks while Redis is unavailable, and then sells", long, async () => {
    await put("down", 5);
    await toRedis.cut();
    await until(async () => (await fetch(`${app.url}/readyz/writes`)).status !== 200, "writes are refused");
    const checkout = start("checkout", "down-1", "down:2");
    await until(async () => (await reservesWith("Unavailable")) > 0, "the checkout was refused");
    await toRedis.pass();
    const { stdout, stderr } = await checkout;
    assert.deepEqual(JSON.parse(stdout), { outcome: "shipped", revived: false });
    const [retry] = stderr
      .split("\n")
      .filter((line) => line.startsWith("{"))
      .map((line) => JSON.parse(line));
    assert.equal(retry.retryDelayMs, 1_000);
    assert.ok(retry.delayMs >= retry.retryDelayMs, JSON.stringify(retry));
    assert.deepEqual(await ledgerOf("down"), { sold: 2, reserved: 0, available: 3 });
  });

  it("asks the payment provider after a timeout, and sells what was charged", long, async () => {
    await put("timeout", 5);
    const printed = await outcomeOf("checkout", "--card", "timeout", "timeout-1", "timeout:1");
    assert.deepEqual(printed, { outcome: "shipped", revived: false });
    assert.deepEqual(await ledgerOf("timeout"), { sold: 1, reserved: 0, available: 4 });
  });

  it("recovers the orders of checkouts that crashed after the charge, by two jobs at once", async () => {
    for (const productId of ["held", "revived", "gone", "unpaid"]) await put(productId, 2);
    const crash = async (orderId: string, productId: string, ttlMs: number) => {
      const args = ["--card", "crash", "--ttl-ms", String(ttlMs), orderId, `${productId}:2`];
      assert.equal((await start("checkout", ...args)).exitCode, -1, "it is killed");
    };
    await crash("held-1", "held", 60_000);
    await crash("revived-1", "revived", 1_000);
    await crash("gone-1", "gone", 1_000);
    const lost = ["--card", "lost", "--ttl-ms", "60000", "unpaid-1", "unpaid:2"];
    assert.deepEqual(await outcomeOf("checkout", ...lost), { outcome: "pending" });
    for (const orderId of ["revived-1", "gone-1"]) {
      await until(async () => (await stateOf(orderId)) === ReservationState.EXPIRED, `${orderId} is expired`);
    }
    const lines = [{ productId: "gone", quantity: 1 }];
    await reservations.reserve({ reservationId: "other-shopper", lines });

    for (const printed of await Promise.all([outcomesOf("recover"), outcomesOf("recover")])) {
      const outcomeBy = new Map(printed.map(({ orderId, outcome }) => [orderId, outcome]));
      assert.equal(outcomeBy.get("unpaid-1"), "pending");
      // A job may find that the other one has finished an order.
      assert.equal(outcomeBy.get("held-1") ?? "shipped", "shipped");
      assert.equal(outcomeBy.get("revived-1") ?? "shipped", "shipped");
      assert.equal(outcomeBy.get("gone-1") ?? "refunded", "refunded");
    }
    assert.equal(await stateOf("held-1"), ReservationState.COMMITTED);
    assert.equal(await stateOf("revived-1"), ReservationState.COMMITTED);
    assert.equal(await stateOf("unpaid-1"), ReservationState.ACTIVE);
    assert.deepEqual(await ledgerOf("held"), { sold: 2, reserved: 0, available: 0 });
    assert.deepEqual(await ledgerOf("revived"), { sold: 2, reserved: 0, available: 0 });
    assert.deepEqual(await ledgerOf("gone"), { sold: 0, reserved: 1, available: 1 });
    assert.equal(
      await stateOf("gone-1"),
      ReservationState.RELEASED,
      "a refunded order can no longer be revived",
    );
    assert.match(await readFile(join(dir, "payments.jsonl"), "utf8"), /"gone-1".*"refunded"/);
  });
}
