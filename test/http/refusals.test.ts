import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type IncomingHttpHeaders, type OutgoingHttpHeaders } from "node:http2";
import { after, before, describe, it } from "node:test";
import { startTestApp, type TestApp } from "../support/app.ts";
import { exchange } from "./raw-http1.ts";

const GET_STOCK = "/inventory.v1.StockService/GetStock";

interface Refusal {
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

for (const LANE of ["on", "off"]) {
  describe(`refusals of the listener, LANE=${LANE}`, { concurrency: true }, () => {
    let app: TestApp;
    before(async () => {
      app = await startTestApp({ LANE });
    });
    after(() => app?.stop());

    async function overHttp2(head: OutgoingHttpHeaders): Promise<Refusal> {
      const session = connect(app.url);
      try {
        const stream = session.request(
          { ":method": "POST", ":path": GET_STOCK, ...head },
          { endStream: true },
        );
        const [headers] = (await once(stream, "response")) as [IncomingHttpHeaders];
        const chunks: Buffer[] = [];
        for await (const chunk of stream) chunks.push(chunk as Buffer);
        return { headers, body: Buffer.concat(chunks).toString("latin1") };
      } finally {
        session.destroy();
      }
    }

    it("CONNECT over HTTP/2: 405 with Allow", async () => {
      const { headers, body } = await overHttp2({
        ":method": "CONNECT",
        ":authority": "a:1",
        ":path": undefined,
      });
      assert.deepEqual([headers[":status"], headers["allow"]], [405, "GET, HEAD, POST, OPTIONS"]);
      assert.match(body, /CONNECT/);
    });

    it("an unknown expectation over HTTP/2: 417", async () => {
      const { headers, body } = await overHttp2({ "content-type": "application/json", expect: "sorcery" });
      assert.equal(headers[":status"], 417);
      assert.match(body, /"sorcery/);
    });

    // nghttp2 refuses most others itself, with a reset.
    const AUTHORITY = { ":authority": "[" };
    it("an invalid :authority over HTTP/2: 400, in the protocol of the caller", async () => {
      const text = await overHttp2({ ...AUTHORITY, ":method": "GET", ":path": "/" });
      assert.equal(text.headers[":status"], 400);
      assert.match(text.body, /^:authority is "\["/);
      const json = await overHttp2({ ...AUTHORITY, "content-type": "application/json; charset=UTF-8" });
      assert.equal(json.headers["content-type"], "application/json");
      assert.equal(JSON.parse(json.body).code, "invalid_argument");
      const grpc = await overHttp2({ ...AUTHORITY, "content-type": "application/grpc+proto" });
      assert.deepEqual([grpc.headers["grpc-status"], grpc.body], ["3", ""]);
      assert.match(String(grpc.headers["grpc-message"]), /^:authority is "\["/);
      const web = await overHttp2({ ...AUTHORITY, "content-type": "application/grpc-web+proto" });
      assert.equal(web.headers["grpc-status"], "3");
      assert.match(web.body, /^\x80.{4}.*grpc-status: 3/s);
    });

    it("a missing Host over HTTP/1.1: 400, in the protocol of the caller", async () => {
      for (const [type, expected] of [
        ["application/json", /^\{"code":"invalid_argument","message":"The request has no Host/],
        ["application/connect+json", /^\{"code":"invalid_argument","message":"The request has no Host/],
        ["application/grpc-web+proto", /^\x80.{4}.*grpc-status: 3/s],
        ["application/grpc-web-text", /^gAAAA/],
        ["text/plain", /^The request has no Host/],
      ] as const) {
        const head = `POST ${GET_STOCK} HTTP/1.1\r\nContent-Type: ${type}\r\nContent-Length: 0\r\n\r\n`;
        const [response] = await exchange(app.port, head);
        assert.equal(response?.status, 400, type);
        assert.match(response?.body ?? "", expected, type);
      }
    });
  });
}

describe("https targets over plaintext", () => {
  const request =
    "GET https://shop.example/healthz HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";

  it("are accepted from a trusted proxy, which has terminated TLS, and from no other peer", async () => {
    await using trusting = await startTestApp({ TRUSTED_PROXIES: "127.0.0.1" });
    assert.equal((await exchange(trusting.port, request))[0]?.status, 200);
    await using other = await startTestApp({ TRUSTED_PROXIES: "192.0.2.1" });
    assert.equal((await exchange(other.port, request))[0]?.status, 421);
  });
});
