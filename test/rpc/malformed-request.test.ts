import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { after, before, describe, it } from "node:test";
import { pino } from "pino";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { until } from "../support/until.ts";
import { DIALECTS, type Dialect, envelope, statusOf, WireClient, type WireResponse } from "./parity-wire.ts";

const PATH = `/${StockService.typeName}/${StockService.method.getStock.name}`;
/** A length-delimited field without its content. */
const UNPARSABLE = Buffer.from([0x0a, 0x7f, 0x01]);

for (const LANE of ["on", "off"]) {
  describe(`a malformed request, with LANE=${LANE}`, () => {
    let app: TestApp;
    let client: WireClient;
    const logged: string[] = [];
    before(async () => {
      const keep = { write: (line: string) => void logged.push(line) };
      app = await startTestApp({ LANE }, { log: pino({ level: "error" }, keep) });
      client = new WireClient(app.port);
    });
    after(async () => {
      client.close();
      await app.stop();
    });

    function post(
      dialect: Dialect,
      body: Buffer,
      headers: Record<string, string> = {},
    ): Promise<WireResponse> {
      const all = { "content-type": dialect.contentType, te: "trailers", ...headers };
      return client.call(dialect.isHttp2, { path: PATH, headers: all, body });
    }

    for (const dialect of DIALECTS) {
      const name = `${dialect.name} over HTTP/${dialect.isHttp2 ? 2 : 1.1}`;

      it(`is INVALID_ARGUMENT in ${name}`, async () => {
        const body = dialect.isJson ? Buffer.from("{") : UNPARSABLE;
        const response = await post(dialect, dialect.isEnveloped ? envelope(body) : body);
        assert.equal(statusOf(dialect, response), "INVALID_ARGUMENT");
        assert.equal(response.status, dialect.isEnveloped ? 200 : 400);
      });

      it(`is refused where an ID is not UTF-8 in ${name}`, async () => {
        const id = Buffer.from("caf\xe9", "latin1");
        const body = dialect.isJson
          ? Buffer.concat([Buffer.from('{"productId":"'), id, Buffer.from('"}')])
          : Buffer.concat([Buffer.from([0x0a, id.length]), id]);
        const response = await post(dialect, dialect.isEnveloped ? envelope(body) : body);
        assert.equal(statusOf(dialect, response), "INVALID_ARGUMENT");
      });
    }

    for (const timeout of ["", "1", "S", "-1S", "1.5S", "1e3m", "123456789S", "1s", "1S,2S", "0x1S"]) {
      it(`is INVALID_ARGUMENT where the timeout is ${JSON.stringify(timeout)}`, async () => {
        for (const dialect of DIALECTS) {
          const message = Buffer.from(dialect.isJson ? "{}" : "");
          const response = await post(dialect, dialect.isEnveloped ? envelope(message) : message, {
            "grpc-timeout": timeout,
            "connect-timeout-ms": timeout === "1" ? "12345678901" : timeout,
          });
          assert.equal(statusOf(dialect, response), "INVALID_ARGUMENT", dialect.name);
        }
      });
    }

    it("is INVALID_ARGUMENT in a stream", async () => {
      const response = await client.call(true, {
        path: `/${StockService.typeName}/${StockService.method.watchStock.name}`,
        headers: { "content-type": "application/grpc", te: "trailers" },
        body: envelope(UNPARSABLE),
      });
      assert.equal(response.trailers["grpc-status"] ?? response.headers["grpc-status"], "3");
      assert.deepEqual(logged, []);
    });

    it("is INVALID_ARGUMENT in a GET, in its base64 and in its message", async () => {
      for (const message of ["!", UNPARSABLE.toString("base64url")]) {
        const response = await fetch(
          `${app.url}${PATH}?encoding=proto&base64=1&connect=v1&message=${message}`,
        );
        assert.equal(response.status, 400);
        assert.equal(JSON.parse(await response.text()).code, "invalid_argument");
      }
    });

    for (const contentType of ["application/json", "application/grpc-web+proto"]) {
      it(`is discarded over HTTP/1.1 after an early response, and the next request is served: ${contentType}`, async () => {
        const socket = connect(app.port, "127.0.0.1");
        let received = "";
        socket.on("data", (data) => {
          received += data.toString("latin1");
        });
        const responses = (): number => received.split("HTTP/1.1 ").length - 1;
        const tooLong = envelope(Buffer.alloc(3 * 1_048_576));
        const head = `POST ${PATH} HTTP/1.1\r\nHost: ${app.address}\r\nContent-Type: `;
        socket.write(`${head}${contentType}\r\nContent-Length: ${tooLong.length}\r\n\r\n`);
        socket.write(tooLong.subarray(0, 2 * 1_048_576));
        await until(() => responses() === 1, "the request that is too large is refused");
        socket.write(tooLong.subarray(2 * 1_048_576));
        socket.write(`${head}application/json\r\nContent-Length: 18\r\n\r\n{"productId":"p1"}`);
        await until(() => responses() === 2, "the next request is served");
        socket.end();
        await once(socket, "close");
        assert.match(received, /resource_exhausted|grpc-status: 8/);
        assert.match(received, /not_found/);
      });
    }
  });
}
