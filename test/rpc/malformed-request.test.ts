import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { after, before, describe, it } from "node:test";
import { pino } from "pino";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { until } from "../support/until.ts";
import { DIALECTS, type Dialect, envelope, type WireAnswer, WireClient } from "./parity-wire.ts";

const PATH = `/${StockService.typeName}/${StockService.method.getStock.name}`;
/** A field of a length that nothing follows. */
const UNPARSABLE = Buffer.from([0x0a, 0x7f, 0x01]);

/** The code as the dialect says it. */
function codeIn(dialect: Dialect, answer: WireAnswer): string {
  if (!dialect.isEnveloped) {
    return String(JSON.parse(answer.body.toString()).code);
  }
  const trailers = `grpc-status: ${answer.trailers["grpc-status"] ?? answer.headers["grpc-status"]}\n`;
  return /grpc-status: (\d+)/.exec(answer.body.toString() + trailers)?.[1] ?? "none";
}

for (const LANE of ["on", "off"]) {
  describe(`what cannot be read, with LANE=${LANE}`, () => {
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

    function post(dialect: Dialect, body: Buffer, headers: Record<string, string> = {}): Promise<WireAnswer> {
      const all = { "content-type": dialect.contentType, te: "trailers", ...headers };
      return client.call(dialect.isHttp2, { path: PATH, headers: all, body });
    }

    for (const dialect of DIALECTS) {
      const invalid = dialect.isEnveloped ? "3" : "invalid_argument";
      const name = `${dialect.name} over HTTP/${dialect.isHttp2 ? 2 : 1.1}`;

      it(`is the caller's fault in ${name}`, async () => {
        const body = dialect.isJson ? Buffer.from("{") : UNPARSABLE;
        const answer = await post(dialect, dialect.isEnveloped ? envelope(body) : body);
        assert.equal(codeIn(dialect, answer), invalid);
        assert.equal(answer.status, dialect.isEnveloped ? 200 : 400);
      });

      it(`is no ID where it is not UTF-8, or two would be taken for one, in ${name}`, async () => {
        const id = Buffer.from("caf\xe9", "latin1");
        const body = dialect.isJson
          ? Buffer.concat([Buffer.from('{"productId":"'), id, Buffer.from('"}')])
          : Buffer.concat([Buffer.from([0x0a, id.length]), id]);
        const answer = await post(dialect, dialect.isEnveloped ? envelope(body) : body);
        assert.equal(codeIn(dialect, answer), invalid);
      });

      it(`refuses a deadline that no timer holds in ${name}`, async () => {
        const warnings: Error[] = [];
        const onWarning = (warning: Error): number => warnings.push(warning);
        process.on("warning", onWarning);
        const body = dialect.isEnveloped
          ? envelope(Buffer.alloc(0))
          : Buffer.from(dialect.isJson ? "{}" : "");
        const answer = await post(dialect, body, {
          "grpc-timeout": "99999999H",
          "connect-timeout-ms": "9999999999",
        });
        await new Promise((resolve) => setImmediate(resolve));
        process.off("warning", onWarning);
        assert.equal(codeIn(dialect, answer), invalid);
        assert.deepEqual(warnings, []);
      });
    }

    it("is the caller's fault in a stream", async () => {
      const answer = await client.call(true, {
        path: `/${StockService.typeName}/${StockService.method.watchStock.name}`,
        headers: { "content-type": "application/grpc", te: "trailers" },
        body: envelope(UNPARSABLE),
      });
      assert.equal(answer.trailers["grpc-status"] ?? answer.headers["grpc-status"], "3");
      assert.deepEqual(logged, []);
    });

    it("is the caller's fault in a GET, be it the base64 or the message", async () => {
      for (const message of ["!", UNPARSABLE.toString("base64url")]) {
        const answer = await fetch(`${app.url}${PATH}?encoding=proto&base64=1&connect=v1&message=${message}`);
        assert.equal(answer.status, 400);
        assert.equal(JSON.parse(await answer.text()).code, "invalid_argument");
      }
    });

    for (const contentType of ["application/json", "application/grpc-web+proto"]) {
      it(`is thrown away over HTTP/1.1 after an early answer, and the next request is answered: ${contentType}`, async () => {
        const socket = connect(app.port, "127.0.0.1");
        let received = "";
        socket.on("data", (data) => {
          received += data.toString("latin1");
        });
        const answers = (): number => received.split("HTTP/1.1 ").length - 1;
        const tooLong = envelope(Buffer.alloc(3 * 1_048_576));
        const head = `POST ${PATH} HTTP/1.1\r\nHost: ${app.address}\r\nContent-Type: `;
        socket.write(`${head}${contentType}\r\nContent-Length: ${tooLong.length}\r\n\r\n`);
        socket.write(tooLong.subarray(0, 2 * 1_048_576));
        await until(() => answers() === 1, "the request that is too long is refused");
        socket.write(tooLong.subarray(2 * 1_048_576));
        socket.write(`${head}application/json\r\nContent-Length: 18\r\n\r\n{"productId":"p1"}`);
        await until(() => answers() === 2, "the next request is answered");
        socket.end();
        await once(socket, "close");
        assert.match(received, /resource_exhausted|grpc-status: 8/);
        assert.match(received, /not_found/);
      });
    }
  });
}
