import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { type Client, createClient } from "@connectrpc/connect";
import type { KafkaMessage } from "kafkajs";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { type Platform, produce, readTopic, skip, startPlatform } from "../kafka/platform.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { type GrpcJsTransport, grpcJsTransport } from "../support/grpc-js-transport.ts";
import { until } from "../support/until.ts";
import { notChosen, pythonMissing, pythonOf, run, runOk } from "./example.ts";

const NAME = "units-sold-python";

interface Tables {
  readonly products: readonly { product_id: string; version: number; available: number }[];
  readonly units_sold: readonly { day: string; product_id: string; units: number }[];
}

describe("examples/units-sold-python", { skip: notChosen || pythonMissing || skip }, () => {
  let platform: Platform;
  let app: TestApp;
  let transport: GrpcJsTransport;
  let supply: Client<typeof SupplyService>;
  let reservations: Client<typeof ReservationService>;
  let python: string;
  let dir: string;

  before(async () => {
    python = await pythonOf(NAME);
    dir = await mkdtemp(join(tmpdir(), "inventory-python-"));
    platform = await startPlatform();
    app = await startTestApp(platform.environment);
    transport = grpcJsTransport(app.address);
    supply = createClient(SupplyService, transport);
    reservations = createClient(ReservationService, transport);
  });
  after(async () => {
    transport?.[Symbol.dispose]();
    await app?.stop();
    await platform?.[Symbol.asyncDispose]();
    await rm(dir, { recursive: true, force: true });
  });

  function environmentOf(database: string): NodeJS.ProcessEnv {
    return { KAFKA_BROKERS: platform.broker.brokers.join(), DATABASE: join(dir, database) };
  }

  async function tablesOf(database = "units-sold.db"): Promise<Tables> {
    return JSON.parse(await runOk(NAME, [python, "units_sold.py", "--json"], environmentOf(database)));
  }

  /** The units of a product over all days: the test may run over midnight. */
  function unitsOf({ units_sold }: Tables, productId: string): number {
    return units_sold
      .filter(({ product_id }) => product_id === productId)
      .reduce((sum, { units }) => sum + units, 0);
  }

  async function ledgerOf(productId: string) {
    const { ledger } = await supply.getLedger({ productId });
    assert.ok(ledger);
    return ledger;
  }

  async function published(): Promise<KafkaMessage[]> {
    return until(async () => {
      const messages = await readTopic(platform.kafka, "inventory");
      const newest = new Set(messages.map(({ headers }) => String(headers?.["eventId"])));
      for (const productId of ["p1", "p2"]) {
        if (!newest.has(`${productId}:${(await ledgerOf(productId)).version}`)) return undefined;
      }
      return messages;
    }, "every change is published");
  }

  async function sell(reservationId: string, productId: string, quantity: number): Promise<void> {
    await reservations.reserve({ reservationId, lines: [{ productId, quantity }] });
    await reservations.commitReservation({ reservationId });
  }

  it("counts what the ledgers have sold, whatever else changes, and once only", async () => {
    await supply.putProduct({ productId: "p1", declared: 100 });
    await supply.putProduct({ productId: "p2", declared: 50 });
    await sell("one", "p1", 5);
    await sell("two", "p2", 3);
    await reservations.returnReservation({
      reservationId: "one",
      returnId: "one-back",
      lines: [{ productId: "p1", quantity: 2 }],
    });
    await supply.adjustStock({ productId: "p1", delta: -10, adjustmentId: "broken" });
    await supply.countStock({ productId: "p2", count: 40, countId: "count" });
    await supply.putProduct({ productId: "p1", declared: 120 });
    const messages = await published();

    for (const tables of [await tablesOf(), await tablesOf()]) {
      assert.deepEqual([unitsOf(tables, "p1"), unitsOf(tables, "p2")], [3, 3]);
      for (const { product_id, version, available } of tables.products) {
        const ledger = await ledgerOf(product_id);
        assert.deepEqual(
          { version, available },
          { version: Number(ledger.version), available: ledger.available },
        );
      }
      assert.equal(tables.products.length, 2);
    }
    const days = (await tablesOf()).units_sold.map(({ day }) => day);
    const lastDay = new Date().toISOString().slice(0, 10);
    assert.ok(
      days.every((day) => /^\d{4}-\d\d-\d\d$/.test(day) && day <= lastDay),
      days.join(),
    );

    // Repetitions, the oldest last.
    const before = await tablesOf();
    const repeated = messages.map(({ key, value, headers }) => ({ key, value, ...(headers && { headers }) }));
    await produce(platform.kafka, "inventory", repeated.toReversed());
    assert.deepEqual(await tablesOf(), before);
    await sell("three", "p1", 1);
    await published();
    const tables = await tablesOf();
    assert.deepEqual([unitsOf(tables, "p1"), unitsOf(tables, "p2")], [4, 3]);
    // From the start of the topic, with every repetition.
    assert.deepEqual(await tablesOf("another.db"), tables);
  });

  it("counts the sales within a gap by the totals, also where the service has lowered them", async () => {
    const change = (version: number, cause: string, adjusted: number, sold: number, reason = "") => ({
      key: "gap",
      headers: { MessageType: "StockChanged", eventId: `gap:${version}` },
      value: JSON.stringify({
        productId: "gap",
        version: String(version),
        cause,
        delta: 0,
        ledger: {
          productId: "gap",
          declared: 10,
          adjusted,
          sold,
          reserved: 0,
          safety: 0,
          onHand: 10 + adjusted - sold,
          available: 10 + adjusted - sold,
          shortfall: 0,
          version: String(version),
          deleted: false,
        },
        changeTime: "2026-11-22T23:59:59.999Z",
        referenceId: "",
        reason,
      }),
    });
    const step = 1_073_741_824;
    const high = 2_147_483_640;
    await produce(platform.kafka, "inventory", [
      change(1, "CHANGE_CAUSE_DECLARED", high, high),
      change(5, "CHANGE_CAUSE_UNSPECIFIED", high, high + 2, "snapshot"),
      change(6, "CHANGE_CAUSE_ADJUSTED", high + 5, high + 2),
      change(7, "CHANGE_CAUSE_COMMITTED", high + 5 - step, high + 5 - step),
      change(9, "CHANGE_CAUSE_UNSPECIFIED", high + 5 - step, high + 9 - step, "snapshot"),
    ]);
    const { units_sold, products } = await tablesOf();
    assert.deepEqual(
      units_sold.filter(({ product_id }) => product_id === "gap"),
      [{ day: "2026-11-22", product_id: "gap", units: 2 + 3 + 4 }],
    );
    assert.deepEqual(
      products.filter(({ product_id }) => product_id === "gap"),
      [{ product_id: "gap", version: 9, available: 6 }],
    );
  });

  it("says why it cannot read", async () => {
    const environment = { ...environmentOf("missing.db"), KAFKA_INVENTORY_TOPIC: "no-such-topic" };
    const { exitCode, stderr } = await run(NAME, [python, "units_sold.py"], environment);
    assert.equal(exitCode, 1);
    assert.match(stderr, /^The topic cannot be read: .*Unknown topic/);
  });
});
