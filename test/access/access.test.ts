import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:http2";
import { after, before, describe, it } from "node:test";
import type { DescMethod, DescService } from "@bufbuild/protobuf";
import { Code, createClient, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { pino } from "pino";
import { ServerReflection } from "../../gen/grpc/reflection/v1/reflection_pb.ts";
import { Health } from "../../gen/health/v1/health_pb.ts";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { Inventory } from "../../gen/inventory_pb.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { until } from "../support/until.ts";
import { AUTH_TOKENS, bearer, codeNameOf, errorOf, PROTOCOLS, sending, TOKENS } from "./callers.ts";

const PUBLIC: readonly DescService[] = [Inventory, StockService, Health];
const GUARDED: readonly [DescService, readonly string[]][] = [
  [ReservationService, ["orders", "ops"]],
  [SupplyService, ["supply", "ops"]],
];

/** Calls a unary method with an empty request, which every mutation rejects as invalid. */
function callOf(transport: Transport, method: DescMethod): Promise<unknown> {
  assert.equal(method.methodKind, "unary");
  return transport.unary(method as DescMethod & { methodKind: "unary" }, undefined, undefined, undefined, {});
}

function unaryMethodsOf(service: DescService): DescMethod[] {
  return service.methods.filter((method) => method.methodKind === "unary");
}

for (const lane of ["on", "off"]) {
  describe(`callers, with LANE=${lane}`, () => {
    const lines: string[] = [];
    let app: TestApp;
    before(async () => {
      const log = pino({ level: "info" }, { write: (line) => lines.push(line) });
      app = await startTestApp({ AUTH_TOKENS, LANE: lane }, { log });
    });
    after(() => app.stop());

    for (const [protocol, create] of Object.entries(PROTOCOLS)) {
      const transportWith = (...interceptors: ReturnType<typeof bearer>[]): Transport =>
        create({ baseUrl: app.url, interceptors });

      it(`${protocol}: every method admits the roles of its service, and no others`, async () => {
        for (const [service, allowed] of GUARDED) {
          for (const method of unaryMethodsOf(service)) {
            assert.equal(await codeNameOf(callOf(transportWith(), method)), "Unauthenticated", method.name);
            for (const [role, token] of Object.entries(TOKENS)) {
              const code = await codeNameOf(callOf(transportWith(bearer(token)), method));
              const expected = allowed.includes(role) ? /^(InvalidArgument|OK)$/ : /^PermissionDenied$/;
              assert.match(code, expected, `${role} calls ${method.name}`);
            }
          }
        }
      });

      it(`${protocol}: reads are public, with any token`, async () => {
        for (const method of PUBLIC.flatMap(unaryMethodsOf)) {
          for (const transport of [transportWith(), transportWith(bearer("nobody's"))]) {
            assert.match(await codeNameOf(callOf(transport, method)), /^(InvalidArgument|OK)$/, method.name);
          }
        }
      });

      it(`${protocol}: errors name the missing role or token, and not why a token is rejected`, async () => {
        const { getReservation } = ReservationService.method;
        const without = await errorOf(callOf(transportWith(), getReservation));
        assert.match(without?.rawMessage ?? "", /authorization: Bearer/);
        const wrong = ["nobody's", `${TOKENS.orders}x`, TOKENS.orders.slice(1), TOKENS.orders.toUpperCase()];
        for (const token of wrong) {
          const error = await errorOf(callOf(transportWith(bearer(token)), getReservation));
          assert.equal(error?.code, Code.Unauthenticated);
          assert.equal(error.rawMessage, "The token is not accepted");
          assert.equal(error.metadata.get("www-authenticate"), "Bearer");
        }
        const denied = await errorOf(callOf(transportWith(bearer(TOKENS.supply)), getReservation));
        assert.equal(denied?.rawMessage, "This method requires the role orders or ops");
        const other = sending({ authorization: `Basic ${TOKENS.orders}` });
        assert.equal(await codeNameOf(callOf(transportWith(other), getReservation)), "Unauthenticated");
      });
    }

    it("logs every write with its caller and its IDs, and never a token", async () => {
      const transport = createGrpcTransport({
        baseUrl: app.url,
        interceptors: [bearer(TOKENS.ops), sending({ "x-request-id": "request-7" })],
      });
      const supply = createClient(SupplyService, transport);
      await supply.putProduct({ productId: "p1", declared: 5 });
      await supply.getLedger({ productId: "p1" });
      const reservations = createClient(ReservationService, transport);
      const lines5 = [{ productId: "p1", quantity: 9 }];
      await errorOf(reservations.reserve({ reservationId: "r1", lines: lines5 }));
      const writes = lines
        .map((line) => JSON.parse(line) as Record<string, unknown>)
        .filter(({ msg, requestId }) => msg === "write" && requestId === "request-7");
      assert.partialDeepStrictEqual(writes, [
        {
          method: "inventory.v1.SupplyService/PutProduct",
          caller: "ops-service",
          code: "OK",
          productId: "p1",
        },
        {
          method: "inventory.v1.ReservationService/Reserve",
          caller: "ops-service",
          code: "FailedPrecondition",
          reservationId: "r1",
        },
      ]);
      assert.equal(writes.length, 2, "reads are not logged");
      assert.ok(!lines.some((line) => Object.values(TOKENS).some((token) => line.includes(token))));
      assert.ok(lines.some((line) => line.includes('"reason":"The caller does not have the role')));
    });
  });
}

describe("a call that has ended and is logged", () => {
  it("writes nothing if its request body arrives after the deadline", async () => {
    await using app = await startTestApp({ AUTH_TOKENS, LANE: "on" });
    const session = connect(app.url);
    const stream = session.request(
      {
        ":method": "POST",
        ":path": "/inventory.v1.SupplyService/PutProduct",
        "content-type": "application/json",
        "connect-timeout-ms": "50",
        authorization: `Bearer ${TOKENS.ops}`,
      },
      { endStream: false },
    );
    stream.write('{"productId":"late",');
    const [{ ":status": status }] = await once(stream, "response");
    assert.equal(status, 504);
    stream.end('"declared":5}');
    await once(stream.resume(), "close");
    session.close();
    const transport = createGrpcTransport({ baseUrl: app.url, interceptors: [bearer(TOKENS.ops)] });
    const reading = createClient(SupplyService, transport).getLedger({ productId: "late" });
    assert.equal(await codeNameOf(reading), "NotFound");
  });
});

describe("the schema", () => {
  for (const [setting, expected] of [
    ["on", "OK"],
    ["off", "Unimplemented"],
  ] as const) {
    it(`REFLECTION=${setting} responds ${expected}`, async () => {
      await using app = await startTestApp({ REFLECTION: setting });
      const client = createClient(ServerReflection, createGrpcTransport({ baseUrl: app.url }));
      const ask = async (): Promise<void> => {
        async function* requests() {
          yield { messageRequest: { case: "listServices" as const, value: "" } };
        }
        for await (const _answer of client.serverReflectionInfo(requests())) {
          // One response for each request.
        }
      };
      assert.equal(await codeNameOf(ask()), expected);
    });
  }
});

describe("the demo shop", () => {
  it("authenticates where that is required", async () => {
    const lines: string[] = [];
    const log = pino({ level: "debug" }, { write: (line) => lines.push(line) });
    await using app = await startTestApp({ AUTH_TOKENS, DEMO: "on" }, { log });
    const stock = createClient(StockService, createGrpcTransport({ baseUrl: app.url }));
    // The demo starts once the catalog is sorted.
    await until(async () => (await stock.getStock({ productId: "demo-01" })).stock, "the demo has products");
    const write = lines.find((line) => line.includes('"caller":"demo"') && line.includes("PutProduct"));
    assert.match(write ?? "", /"level":20,/, "at debug, so that its shoppers do not hide everything else");
  });
});
