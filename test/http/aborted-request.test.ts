import assert from "node:assert/strict";
import { constants } from "node:http2";
import { connect } from "node:net";
import { after, before, describe, it } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { create, toBinary } from "@bufbuild/protobuf";
import { type Client, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { AdjustStockRequestSchema, SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import {
  END_HEADERS,
  FRAME,
  frame,
  PREFACE,
  postBlock,
  postHead,
  RawClient,
  SETTINGS,
} from "../attack/raw-client.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { until } from "../support/until.ts";

const ADJUST_STOCK = "/inventory.v1.SupplyService/AdjustStock";
const TYPE = "application/proto";

// A Connect request in binary has no length of its own, so a prefix of it may be a valid message.
for (const LANE of ["on", "off"]) {
  describe(`an aborted request, LANE=${LANE}`, () => {
    let app: TestApp;
    let supply: Client<typeof SupplyService>;
    before(async () => {
      app = await startTestApp({ LANE });
      supply = createClient(SupplyService, createConnectTransport({ baseUrl: app.url, httpVersion: "1.1" }));
      await supply.putProduct({ productId: "p1", declared: 100 });
    });
    after(() => app.stop());

    function adjustment(adjustmentId: string): Buffer {
      return Buffer.from(
        toBinary(
          AdjustStockRequestSchema,
          create(AdjustStockRequestSchema, { productId: "p1", delta: 1, adjustmentId }),
        ),
      );
    }

    async function assertUntouched(): Promise<void> {
      assert.equal((await supply.getLedger({ productId: "p1" })).ledger?.adjusted, 0);
    }

    for (const code of ["NO_ERROR", "CANCEL", "INTERNAL_ERROR"] as const) {
      for (const isAtOnce of [true, false]) {
        it(`reset with ${code} ${isAtOnce ? "at once" : "after its body was read"} is not executed`, async () => {
          using client = (await RawClient.open(app.port)).read();
          const reset = Buffer.alloc(4);
          reset.writeUInt32BE(constants[`NGHTTP2_${code}`]);
          const request = [
            frame(FRAME.headers, END_HEADERS, 1, postBlock(ADJUST_STOCK, TYPE)),
            frame(FRAME.data, 0, 1, adjustment(`reset-${code}-${isAtOnce}`)),
          ];
          await client.send(Buffer.concat([PREFACE, SETTINGS, ...request]));
          if (!isAtOnce) {
            await seen(client, "read so far");
          }
          await client.send(frame(FRAME.reset, 0, 1, reset));
          await seen(client, "read it all");
          await assertUntouched();
        });
      }
    }

    it("whose body arrives after its deadline is not executed", async () => {
      using client = (await RawClient.open(app.port)).read();
      const body = adjustment("late");
      const deadlineMs = 20;
      const headers = {
        "content-type": TYPE,
        "content-length": body.length,
        "connect-timeout-ms": deadlineMs,
      };
      await client.send(postHead(ADJUST_STOCK, headers));
      // There is no event to await: the fast path responds at the deadline, Connect once it has the body.
      await pause(5 * deadlineMs);
      await client.send(body);
      await until(() => /deadline_exceeded/.test(client.received), "the response is deadline_exceeded");
      await assertUntouched();
    });

    it("whose connection closes before its body is complete is not executed", async () => {
      const body = adjustment("closed");
      const socket = connect({ port: app.port, host: "127.0.0.1" });
      const head = postHead(ADJUST_STOCK, { "content-type": TYPE, "content-length": body.length + 1 });
      socket.end(Buffer.concat([Buffer.from(head), body]));
      socket.resume();
      await until(() => socket.destroyed, "the server has closed");
      await assertUntouched();
    });
  });
}

/** Resolves when the server has acknowledged a PING, and so has read everything sent before it. */
async function seen(client: RawClient, mark: string): Promise<void> {
  const payload = mark.padEnd(8).slice(-8);
  await client.send(frame(FRAME.ping, 0, 0, Buffer.from(payload)));
  await until(() => client.received.includes(payload), "the PING is acknowledged");
}
