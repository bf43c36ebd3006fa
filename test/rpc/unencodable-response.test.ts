import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { DIALECTS, WireClient, wireRequest } from "./parity-wire.ts";

/** A count out of the range of int32, and a time out of the range of JSON timestamps. */
const implementation = {
  getStock: () => ({ stock: { available: 2 ** 40, updateTime: { seconds: 10n ** 15n } } }),
};

for (const LANE of ["on", "off"]) {
  describe(`a response that cannot be encoded, with LANE=${LANE}`, () => {
    let app: TestApp;
    let client: WireClient;
    before(async () => {
      const services = [{ desc: StockService, implementation }];
      app = await startTestApp({ LANE }, { extraApi: { services } });
      client = new WireClient(app.port);
    });
    after(async () => {
      client.close();
      await app.stop();
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
