import assert from "node:assert/strict";
import { connect as http2Connect } from "node:http2";
import { connect as tcpConnect } from "node:net";
import { after, before, describe, it } from "node:test";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import {
  DIALECTS,
  type Dialect,
  STREAM_DIALECTS,
  statusOf,
  WireClient,
  type WireRequest,
  wireRequest,
} from "./parity-wire.ts";

const { reserve, getReservation } = ReservationService.method;
const { getLedger, putProduct } = SupplyService.method;
const { getStock, watchStock } = StockService.method;

const REDIS = need("redis-server").missing;
const SETUPS = ["on", "off"].flatMap((LANE) => [
  { LANE, store: "memory", skip: false },
  { LANE, store: "Redis", skip: REDIS },
]);
const EXPIRED = [
  { "grpc-timeout": "0S", "connect-timeout-ms": "0" },
  { "grpc-timeout": "00000000H", "connect-timeout-ms": "0000000000" },
  // Shorter than any request takes to arrive. The Connect protocol has no unit below a millisecond.
  { "grpc-timeout": "1n", "connect-timeout-ms": "0" },
];
const LONGEST = [
  { "grpc-timeout": "99999999H", "connect-timeout-ms": "9999999999" },
  { "grpc-timeout": "25H", "connect-timeout-ms": "86400001" },
  // The longest delay of a timer is 2,147,483,647 ms.
  { "grpc-timeout": "2147484S", "connect-timeout-ms": "2147483648" },
];
/** Those whose bodies can be sent in parts as they are. */
const BINARY_DIALECTS = DIALECTS.filter(({ name }) => name !== "gRPC-Web-text");
const nameOf = (dialect: Dialect): string => `${dialect.name} over HTTP/${dialect.isHttp2 ? 2 : 1.1}`;

for (const { LANE, store, skip } of SETUPS) {
  describe(`deadlines on the ${store} store, with LANE=${LANE}`, { skip }, () => {
    let redis: RedisServer | undefined;
    let app: TestApp;
    let client: WireClient;
    let orders = 0;
    const [json] = DIALECTS.filter(({ contentType }) => contentType === "application/json");

    before(async () => {
      redis = store === "Redis" ? await startRedis() : undefined;
      app = await startTestApp({ LANE, ...(redis && { REDIS_URL: redis.url }) });
      client = new WireClient(app.port);
      await until(async () => (await fetch(`${app.url}/readyz`)).ok, "the server is ready");
      assert.ok(json);
      const product = wireRequest(json, putProduct, { productId: "p", declared: 1_000_000 });
      assert.equal((await client.call(false, product)).status, 200);
    });
    after(async () => {
      client?.close();
      await app?.stop();
      await redis?.stop();
    });

    function order(dialect: Dialect, headers: Readonly<Record<string, string>>): [string, WireRequest] {
      orders += 1;
      const reservationId = `order-${orders}`;
      const request = wireRequest(dialect, reserve, {
        reservationId,
        lines: [{ productId: "p", quantity: 1 }],
      });
      return [reservationId, { ...request, headers: { ...request.headers, ...headers } }];
    }

    async function assertNothingReserved(reservationId: string): Promise<void> {
      assert.ok(json);
      const found = await client.call(false, wireRequest(json, getReservation, { reservationId }));
      assert.equal(found.status, 404, found.body.toString());
      const { body } = await client.call(false, wireRequest(json, getLedger, { productId: "p" }));
      assert.equal(JSON.parse(body.toString()).ledger.reserved ?? 0, 0);
    }

    for (const dialect of DIALECTS) {
      it(`do not run a call that is late when it begins, in ${nameOf(dialect)}`, async () => {
        for (const headers of EXPIRED) {
          const [reservationId, request] = order(dialect, headers);
          const response = await client.call(dialect.isHttp2, request);
          assert.equal(statusOf(dialect, response), "DEADLINE_EXCEEDED", JSON.stringify(headers));
          await assertNothingReserved(reservationId);
          const read = wireRequest(dialect, getStock, { productId: "p" });
          const late = { ...read, headers: { ...read.headers, ...headers } };
          assert.equal(statusOf(dialect, await client.call(dialect.isHttp2, late)), "DEADLINE_EXCEEDED");
        }
      });

      it(`are shortened to a day where they are longer, in ${nameOf(dialect)}`, async () => {
        const warnings: Error[] = [];
        const onWarning = (warning: Error): number => warnings.push(warning);
        process.on("warning", onWarning);
        for (const headers of LONGEST) {
          const read = wireRequest(dialect, getStock, { productId: "p" });
          const request = { ...read, headers: { ...read.headers, ...headers } };
          const response = await client.call(dialect.isHttp2, request);
          assert.equal(statusOf(dialect, response), "OK", JSON.stringify(headers));
        }
        await new Promise((resolve) => setImmediate(resolve));
        process.off("warning", onWarning);
        assert.deepEqual(warnings, [], "no timer overflowed");
      });
    }

    for (const dialect of STREAM_DIALECTS) {
      it(`do not open a watch that is late when it begins, in ${nameOf(dialect)}`, async () => {
        for (const headers of EXPIRED) {
          const request = wireRequest(dialect, watchStock, {});
          const late = { ...request, headers: { ...request.headers, ...headers } };
          const response = await client.call(dialect.isHttp2, late);
          assert.equal(statusOf(dialect, response), "DEADLINE_EXCEEDED");
          assert.ok(!response.body.includes("lastOfSnapshot"));
        }
      });
    }

    it("end a call whose body does not arrive in time, over HTTP/2", async () => {
      for (const dialect of BINARY_DIALECTS.filter(({ isHttp2 }) => isHttp2)) {
        const [reservationId, { path, headers, body }] = order(dialect, {
          "grpc-timeout": "50m",
          "connect-timeout-ms": "50",
        });
        const session = http2Connect(app.url);
        const stream = session.request({ ":method": "POST", ":path": path, ...headers });
        stream.on("error", () => {});
        stream.write(body.subarray(0, -1));
        const received: string[] = [];
        stream.on("response", (head) => received.push(JSON.stringify(head)));
        stream.on("trailers", (trailers) => received.push(JSON.stringify(trailers)));
        stream.on("data", (data: Buffer) => received.push(data.toString("latin1")));
        await until(
          () => /deadline_exceeded|grpc-status(": ?"|: )4/.test(received.join()),
          `${nameOf(dialect)} ends: ${received}`,
        );
        stream.end(body.subarray(-1));
        session.destroy();
        await assertNothingReserved(reservationId);
      }
    });

    it("end a call whose body does not arrive in time, over HTTP/1.1, and keep the connection", async () => {
      for (const dialect of BINARY_DIALECTS.filter(({ isHttp2 }) => !isHttp2)) {
        const [reservationId, { path, headers, body }] = order(dialect, {
          "grpc-timeout": "50m",
          "connect-timeout-ms": "50",
        });
        const socket = tcpConnect(app.port, "127.0.0.1");
        let received = "";
        socket.on("data", (data) => {
          received += data.toString("latin1");
        });
        const fields = Object.entries({ host: app.address, ...headers, "content-length": body.length });
        const head = fields.map(([name, value]) => `${name}: ${value}\r\n`).join("");
        socket.write(`POST ${path} HTTP/1.1\r\n${head}\r\n`);
        socket.write(body.subarray(0, -1));
        await until(
          () => /deadline_exceeded|grpc-status: 4/.test(received),
          `${nameOf(dialect)} ends: ${received}`,
        );
        socket.write(body.subarray(-1));
        socket.write(`GET /healthz HTTP/1.1\r\nhost: ${app.address}\r\n\r\n`);
        await until(() => /\r\n\r\nok\n$/.test(received), `the next request is served: ${received}`);
        socket.destroy();
        await assertNothingReserved(reservationId);
      }
    });
  });
}
