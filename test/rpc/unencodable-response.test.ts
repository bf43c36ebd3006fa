import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { pino } from "pino";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import type { Listener } from "../../server/http/listener/listener.ts";
import { startPort } from "../support/port.ts";
import { DIALECTS, WireClient, wireRequest } from "./parity-wire.ts";

/** A count out of the range of int32, and a time out of the range of JSON timestamps. */
const implementation = {
  getStock: () => ({ stock: { available: 2 ** 40, updateTime: { seconds: 10n ** 15n } } }),
};

for (const hasFastPath of [true, false]) {
  describe(`a response that cannot be encoded, with LANE=${hasFastPath ? "on" : "off"}`, () => {
    let listener: Listener;
    let client: WireClient;
    before(async () => {
      listener = await startPort({
        routes: (router) => router.service(StockService, implementation),
        services: hasFastPath ? [{ desc: StockService, implementation }] : [],
        log: pino({ level: "silent" }),
      });
      client = new WireClient(listener.port);
    });
    after(async () => {
      client.close();
      await listener.drain(1_000);
    });

    for (const dialect of DIALECTS) {
      it(`is INTERNAL in ${dialect.name} over HTTP/${dialect.isHttp2 ? 2 : 1.1}, and the server stays up`, async () => {
        const request = wireRequest(dialect, StockService.method.getStock, { productId: "p1" });
        const { status, trailers, body } = await client.call(dialect.isHttp2, request);
        const text = `${JSON.stringify(trailers)}${body}`;
        assert.equal(status, dialect.isEnveloped ? 200 : 500);
        assert.match(text, /"grpc-status":"13"|grpc-status: 13|"code":"internal"/);
      });
    }
  });
}
