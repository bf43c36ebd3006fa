import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { pino } from "pino";
import { LineSchema, ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { type StockChanged, SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { AUTH_TOKENS, bearer, codeNameOf, errorOf, sending, TOKENS } from "../access/callers.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { until } from "../support/until.ts";

type Line = Readonly<Record<string, unknown>>;

for (const lane of ["on", "off"]) {
  describe(`the audit trail, with LANE=${lane}`, () => {
    const logged: Line[] = [];
    let app: TestApp;
    let supply: Client<typeof SupplyService>;
    let orders: Client<typeof ReservationService>;
    before(async () => {
      const log = pino({ level: "info" }, { write: (line) => logged.push(JSON.parse(line)) });
      const environment = { AUTH_TOKENS, LANE: lane, INVENTORY_HISTORY: "12" };
      app = await startTestApp(environment, { log });
      const transportOf = (token: string) =>
        createGrpcTransport({ baseUrl: app.url, interceptors: [bearer(token)] });
      supply = createClient(SupplyService, transportOf(TOKENS.supply));
      orders = createClient(ReservationService, transportOf(TOKENS.orders));
    });
    after(() => app?.stop());

    const put = (productId: string, declared = 10) => supply.putProduct({ productId, declared });
    const units = (productId: string, quantity: number) => create(LineSchema, { productId, quantity });

    /** The lines of the log that have a value in a field, without what differs from run to run. */
    function linesWith(field: string, value: string): Line[] {
      return logged
        .filter((line) => line[field] === value)
        .map(({ level, time, pid, hostname, address, ms, requestId, traceId, ...rest }) => rest);
    }

    it("names the authenticated caller in each change", async () => {
      const productId = "named";
      await put(productId);
      await supply.countStock({ productId, count: 9, countId: "c-named", reason: "shelf" });
      await supply.adjustStock({ productId, delta: 1, adjustmentId: "a-named" });
      await supply.setSafetyStock({ productId, safety: 1 });
      const lines = [units(productId, 2)];
      await orders.reserve({ reservationId: "o-named", lines });
      await orders.commitReservation({ reservationId: "o-named" });
      await orders.returnReservation({ reservationId: "o-named", returnId: "r-named", lines });
      await orders.reserve({ reservationId: "o-other", lines });
      await orders.releaseReservation({ reservationId: "o-other" });
      await supply.deleteProduct({ productId });
      const { changes, truncated } = await supply.listChanges({ productId });
      assert.deepEqual(changes.map(({ actor }) => actor.replace("-service", "")).reverse(), [
        "supply",
        "supply",
        "supply",
        "supply",
        "orders",
        "orders",
        "orders",
        "orders",
        "orders",
        "supply",
      ]);
      assert.equal(truncated, false);
    });

    it("says what happened to an order: in all its products, in one, page by page", async () => {
      await put("trace-a");
      await put("trace-b");
      const lines = [units("trace-a", 3), units("trace-b", 1)];
      await orders.reserve({ reservationId: "o-trace", lines });
      await orders.commitReservation({ reservationId: "o-trace", lines: [units("trace-a", 3)] });
      const back = { reservationId: "o-trace", returnId: "r-trace", lines: [units("trace-a", 1)] };
      await orders.returnReservation(back);
      const all: StockChanged[] = [];
      let pageToken = "";
      do {
        const page = await supply.listChanges({ referenceId: "o-trace", pageSize: 2, pageToken });
        assert.equal(page.truncated, false);
        all.push(...page.changes);
        pageToken = page.nextPageToken;
      } while (pageToken !== "");
      const steps = all.map(
        ({ productId, version, referenceId }) => `${productId} ${version} ${referenceId}`,
      );
      assert.deepEqual(steps.toSorted(), [
        "trace-a 2 o-trace",
        "trace-a 3 o-trace",
        "trace-a 4 r-trace",
        "trace-b 2 o-trace",
        "trace-b 3 o-trace",
      ]);
      const ofOne = await supply.listChanges({ referenceId: "o-trace", productId: "trace-b" });
      assert.deepEqual(
        ofOne.changes.map(({ version }) => version),
        [3n, 2n],
      );
    });

    it("says when older changes are gone, and only on the last page", async () => {
      const productId = "long";
      await put(productId);
      await orders.reserve({ reservationId: "o-long", lines: [units(productId, 1)] });
      for (let n = 0; n < 10; n++) {
        await supply.adjustStock({ productId, delta: 1, adjustmentId: `a-long-${n}` });
      }
      assert.equal((await supply.listChanges({ productId })).truncated, false);
      await supply.adjustStock({ productId, delta: 1, adjustmentId: "a-long-10" });
      const first = await supply.listChanges({ productId, pageSize: 7 });
      assert.equal(first.truncated, false);
      const last = await supply.listChanges({ productId, pageSize: 7, pageToken: first.nextPageToken });
      assert.deepEqual([last.changes.length, last.nextPageToken, last.truncated], [5, "", true]);
      assert.equal((await supply.listChanges({ referenceId: "o-long" })).truncated, false);
      await supply.adjustStock({ productId, delta: 1, adjustmentId: "a-long-11" });
      const gone = await supply.listChanges({ referenceId: "o-long" });
      assert.deepEqual([gone.changes.length, gone.truncated], [0, true]);
      // The changes after a page may be trimmed before the next page is read.
      for (let n = 12; n < 24; n++) {
        await supply.adjustStock({ productId, delta: 1, adjustmentId: `a-long-${n}` });
      }
      const late = await supply.listChanges({ productId, pageToken: first.nextPageToken });
      assert.deepEqual([late.changes.length, late.truncated], [0, true]);
    });

    it("answers an unknown reference with an empty, truncated list, and refuses invalid requests", async () => {
      const unknown = await supply.listChanges({ referenceId: "never" });
      assert.deepEqual([unknown.changes.length, unknown.truncated], [0, true]);
      assert.equal(
        await codeNameOf(supply.listChanges({ referenceId: "x", productId: "never" })),
        "NotFound",
      );
      const neither = await errorOf(supply.listChanges({}));
      assert.match(
        neither?.rawMessage ?? "",
        /^product_id is empty; give 1 to 128 bytes, or a reference_id$/,
      );
      await put("token");
      await supply.adjustStock({ productId: "token", delta: 1, adjustmentId: "a-token" });
      const { nextPageToken } = await supply.listChanges({ productId: "token", pageSize: 1 });
      const mixed = await errorOf(supply.listChanges({ referenceId: "o-trace", pageToken: nextPageToken }));
      assert.match(mixed?.rawMessage ?? "", /^page_token is /);
    });

    it("logs what was requested and what came of it", async () => {
      const productId = "log";
      const put = { productId, declared: 10, product: { name: "A secret name", price: 5 } };
      await supply.putProduct(put);
      await supply.countStock({
        productId,
        count: 9,
        countId: "c-log",
        reason: "shelf 4",
        expectedVersion: 1n,
      });
      await supply.adjustStock({ productId, delta: -2, adjustmentId: "a-log", reason: "broken" });
      await supply.setSafetyStock({ productId, safety: 0 });
      const lines = [units(productId, 3)];
      await orders.reserve({ reservationId: "o-log", lines, ttl: durationFromMs(90_500) });
      await orders.commitReservation({ reservationId: "o-log" });
      const head = { code: "OK", msg: "write" };
      const seller = { ...head, caller: "supply-service", productId };
      assert.deepEqual(linesWith("productId", productId), [
        {
          ...seller,
          method: "inventory.v1.SupplyService/PutProduct",
          declared: 10,
          applied: true,
          version: 1,
          onHand: 10,
          available: 10,
        },
        {
          ...seller,
          method: "inventory.v1.SupplyService/CountStock",
          count: 9,
          countId: "c-log",
          reason: "shelf 4",
          expectedVersion: "1",
          version: 2,
          onHand: 9,
          available: 9,
        },
        {
          ...seller,
          method: "inventory.v1.SupplyService/AdjustStock",
          delta: -2,
          adjustmentId: "a-log",
          reason: "broken",
          version: 3,
          onHand: 7,
          available: 7,
        },
        {
          ...seller,
          method: "inventory.v1.SupplyService/SetSafetyStock",
          safety: 0,
          version: 3,
          onHand: 7,
          available: 7,
        },
      ]);
      const order = { ...head, caller: "orders-service", reservationId: "o-log" };
      assert.deepEqual(linesWith("reservationId", "o-log"), [
        {
          ...order,
          method: "inventory.v1.ReservationService/Reserve",
          lines: [{ productId, quantity: 3 }],
          ttlMs: 90_500,
          state: "active",
        },
        {
          ...order,
          method: "inventory.v1.ReservationService/CommitReservation",
          lines: [{ productId, quantity: 3 }],
          state: "committed",
        },
      ]);
      assert.ok(!JSON.stringify(logged).includes("A secret name"));
    });

    it("logs why a call was refused, with the numbers", async () => {
      const productId = "refused";
      await put(productId, 2);
      const lines = [units(productId, 1)];
      await errorOf(orders.reserve({ reservationId: "o-short", lines: [units(productId, 5)] }));
      await orders.releaseReservation({ reservationId: "o-released" });
      await errorOf(orders.reserve({ reservationId: "o-released", lines }));
      await orders.reserve({ reservationId: "o-reused", lines });
      await errorOf(orders.reserve({ reservationId: "o-reused", lines: [units(productId, 2)] }));
      await errorOf(supply.adjustStock({ productId, delta: -3, adjustmentId: "a-refused" }));
      const count = { productId, count: 1, countId: "c-refused", expectedVersion: 99n };
      await errorOf(supply.countStock(count));
      await errorOf(supply.setSafetyStock({ productId: "refused-unknown", safety: 1 }));
      await errorOf(supply.adjustStock({ productId, adjustmentId: "a-invalid", reason: "x".repeat(700) }));
      const last = (field: string, value: string) => linesWith(field, value).at(-1);
      assert.partialDeepStrictEqual(last("reservationId", "o-short"), {
        code: "FailedPrecondition",
        refusal: "short",
        lines: [{ productId, quantity: 5 }],
        shortage: [{ productId, requested: 5, available: 2 }],
      });
      assert.equal(last("reservationId", "o-released")?.["refusal"], "released");
      assert.partialDeepStrictEqual(last("reservationId", "o-reused"), {
        code: "AlreadyExists",
        refusal: "reused",
        error:
          'reservation_id "o-reused" belongs to an earlier operation with other content; use a new ID for a new operation',
      });
      assert.partialDeepStrictEqual(last("adjustmentId", "a-refused"), {
        refusal: "range",
        actual: { onHand: 2 },
      });
      assert.partialDeepStrictEqual(last("countId", "c-refused"), {
        refusal: "version",
        expectedVersion: "99",
        actual: { version: 2 },
      });
      assert.equal(last("productId", "refused-unknown")?.["refusal"], "product_unknown");
      const invalid = last("adjustmentId", "a-invalid");
      assert.equal(invalid?.["refusal"], "invalid_input");
      assert.equal(String(invalid["reason"]).length, 512);
      assert.match(JSON.stringify(invalid["violations"]), /"field":"delta"/);
    });

    it("bounds a line of the log, whatever a request has", async () => {
      const id = "x".repeat(5_000);
      const lines = Array.from({ length: 1_000 }, () => units(id.slice(0, 500), 1));
      assert.equal(await codeNameOf(orders.reserve({ reservationId: id, lines })), "InvalidArgument");
      const line = logged.find(({ linesOmitted }) => linesOmitted === 900);
      assert.ok(line !== undefined && JSON.stringify(line).length < 40_000);
      assert.equal(String(line["reservationId"]).length, 128);
    });

    it("logs an expiry with its lines, and records it as the system's", async () => {
      const productId = "expires";
      await put(productId);
      const lines = [units(productId, 4)];
      const request = { reservationId: "o-expires", lines, ttl: durationFromMs(1_000) };
      await orders.reserve(request);
      const isExpiry = ({ msg }: Line) => msg === "A reservation expired";
      await until(() => linesWith("reservationId", "o-expires").some(isExpiry), "the expiry is logged");
      assert.deepEqual(linesWith("reservationId", "o-expires").at(-1), {
        reservationId: "o-expires",
        lines: [{ productId, quantity: 4 }],
        caller: "system:expiry",
        msg: "A reservation expired",
      });
      const { changes } = await supply.listChanges({ referenceId: "o-expires" });
      assert.equal(changes[0]?.actor, "system:expiry");
      await errorOf(orders.commitReservation({ reservationId: "o-expires", strict: true }));
      assert.equal(linesWith("reservationId", "o-expires").at(-1)?.["refusal"], "expired");
    });

    it("logs the request ID with the content", async () => {
      const interceptors = [bearer(TOKENS.supply), sending({ "x-request-id": "request-9" })];
      const client = createClient(SupplyService, createGrpcTransport({ baseUrl: app.url, interceptors }));
      await put("identified");
      await client.adjustStock({ productId: "identified", delta: 1, adjustmentId: "a-identified" });
      const line = logged.find(({ requestId }) => requestId === "request-9");
      assert.partialDeepStrictEqual(line, { adjustmentId: "a-identified", delta: 1 });
    });
  });
}
