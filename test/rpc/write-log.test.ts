import assert from "node:assert/strict";
import { it } from "node:test";
import { create } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { pino } from "pino";
import {
  BatchAdjustStockRequestSchema,
  BatchAdjustStockResponseSchema,
  SupplyService,
} from "../../gen/inventory/v1/supply_pb.ts";
import { Call } from "../../server/rpc/call.ts";
import { writeLogMiddleware } from "../../server/rpc/middleware/write-log.ts";

it("a batch is one line with its counts, and a line for each of its requests", () => {
  const lines: Record<string, unknown>[] = [];
  const log = pino({ base: null, timestamp: false }, { write: (line) => lines.push(JSON.parse(line)) });
  const method = SupplyService.method.batchAdjustStock;
  const caller = { address: "192.0.2.1", connection: {} };
  const headers = { "x-request-id": "request-1" };
  const call = new Call({ method, headers, caller } as unknown as ConstructorParameters<typeof Call>[0], []);
  call.principal = { name: "supply", roles: new Set(["supply"]), provenBy: "token" };
  const requests = Array.from({ length: 300 }, (_, n) => ({
    productId: `p${n}`,
    delta: -n - 1,
    adjustmentId: `a${n}`,
    reason: "stocktake",
  }));
  call.request = create(BatchAdjustStockRequestSchema, { requests });
  call.response = create(BatchAdjustStockResponseSchema, {
    results: requests.map((_, n) =>
      n % 2 === 1
        ? { error: { code: Code.NotFound, message: "There is no product" } }
        : { response: { ledger: { version: 3n, onHand: 9, available: 8 } } },
    ),
  });
  call.batch = { requests: 300, failed: 150 };
  writeLogMiddleware(log).leave?.(call, undefined);
  const [first, ...items] = lines;
  assert.partialDeepStrictEqual(first, {
    msg: "write",
    caller: "supply",
    code: "OK",
    requests: 300,
    failed: 150,
  });
  const item = (index: number) => ({
    level: 30,
    msg: "write in a batch",
    method: "inventory.v1.SupplyService/BatchAdjustStock",
    caller: "supply",
    index,
    productId: `p${index}`,
    delta: -index - 1,
    adjustmentId: `a${index}`,
    reason: "stocktake",
    requestId: "request-1",
  });
  assert.deepEqual(items[6], { ...item(6), code: "OK", version: 3, onHand: 9, available: 8 });
  assert.deepEqual(items[7], { ...item(7), code: "NotFound", error: "There is no product" });
  assert.deepEqual(
    items.map(({ index }) => index),
    requests.map((_, index) => index),
  );
});
