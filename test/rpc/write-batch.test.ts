import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { after, before, describe, it } from "node:test";
import type { GetStockRequest } from "../../gen/inventory/v1/stock_pb.ts";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import type { CallContext } from "../../server/rpc/fast-path/methods.ts";
import { startTestApp, type TestApp } from "../support/app.ts";

/** More than two batches of writes. */
const CONNECTIONS = 80;
const UNSENDABLE = "unsendable";
/** The end of the response of `/healthz`. */
const HEALTHY = "\r\n\r\nok\n";

/** Sets a header that Node's HTTP/1.1 refuses to write, for one product. */
const implementation = {
  getStock({ productId }: GetStockRequest, { responseHeader }: CallContext) {
    if (productId === UNSENDABLE) responseHeader.set("x-control", "\u0001");
    return { stock: { productId, available: 1 } };
  },
};

describe("responses over HTTP/1.1 to requests that arrive together", () => {
  let app: TestApp;
  before(async () => {
    app = await startTestApp(
      { LANE: "on" },
      { extraApi: { services: [{ desc: StockService, implementation }] } },
    );
  });
  after(() => app.stop());

  /** Sends one request on each of several open connections in one turn. Returns what each received until it closed. */
  async function askTogether(productIds: readonly string[]): Promise<string[]> {
    const sockets = productIds.map(() => connect(app.port, "127.0.0.1"));
    for (const socket of sockets) socket.write(`GET /healthz HTTP/1.1\r\nHost: ${app.address}\r\n\r\n`);
    await Promise.all(sockets.map((socket) => once(socket, "readable")));
    const responses = sockets.map((socket) => text(socket).catch((error: Error) => error.message));
    for (const [index, socket] of sockets.entries()) {
      const body = JSON.stringify({ productId: productIds[index] });
      socket.write(
        `POST /inventory.v1.StockService/GetStock HTTP/1.1\r\nHost: ${app.address}\r\nConnection: close\r\n` +
          `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      );
    }
    const received = await Promise.all(responses);
    return received.map((bytes) => bytes.slice(bytes.indexOf(HEALTHY) + HEALTHY.length));
  }

  it("arrive on their own connections, each once", async () => {
    const productIds = Array.from({ length: CONNECTIONS }, (_, index) => `p${index}`);
    const responses = await askTogether(productIds);
    for (const [index, response] of responses.entries()) {
      assert.match(response, /^HTTP\/1\.1 200 OK\r\n/);
      assert.deepEqual(response.match(/"productId":"[^"]*"/g), [`"productId":"${productIds[index]}"`]);
    }
  });

  it("arrive although one of them cannot be written: only its connection is closed", async () => {
    const [first, unsendable, last] = await askTogether(["first", UNSENDABLE, "last"]);
    assert.match(first ?? "", /"productId":"first"/);
    assert.doesNotMatch(unsendable ?? "", /HTTP/);
    assert.match(last ?? "", /"productId":"last"/);
  });
});
