import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { Inventory } from "../../gen/inventory_pb.ts";
import { type AppProcess, startAppProcess } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { until } from "../support/until.ts";
import { shopAt } from "../web/shop.ts";
import { ask, NativeClient, trust } from "./clients.ts";
import { EDGES, type Edge } from "./edges.ts";

// Each server has its own store here, so that the count in a response identifies the server.

const OF_ORDERS = 5;
const OF_SHOPPERS = 7;
const REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/** Declares the product at a server, without the edge. */
async function declare(server: AppProcess, declared: number): Promise<void> {
  const shop = shopAt(server.url);
  await shop.put({ productId: "mug", name: "Enamel Mug", declared });
  shop.close();
}

// Envoy's file does not allow writes; allowing them needs another listener.
for (const kind of [EDGES.caddy, EDGES.nginx]) {
  describe(`a separate server for Orders behind ${kind.name}`, {
    skip: kind.program.missing || need("openssl").missing,
  }, () => {
    let ofOrders: AppProcess;
    let ofShoppers: AppProcess;
    let edge: Edge;
    let native: NativeClient;
    let others: Transport[];

    before(async () => {
      const environment = { TRUSTED_PROXIES: "127.0.0.1" };
      ofOrders = await startAppProcess({ ...environment, REFLECTION: "off" });
      ofShoppers = await startAppProcess(environment);
      await declare(ofOrders, OF_ORDERS);
      await declare(ofShoppers, OF_SHOPPERS);
      edge = await kind.start({
        upstreams: [ofShoppers.port],
        writeUpstreams: [ofOrders.port],
        writers: "127.0.0.1/32",
      });
      trust(edge);
      native = new NativeClient(edge);
      others = [
        createGrpcWebTransport({ baseUrl: edge.url }),
        createConnectTransport({ baseUrl: edge.url }),
        createConnectTransport({ baseUrl: edge.url, useHttpGet: true }),
      ];
    });
    after(async () => {
      native?.[Symbol.dispose]();
      await edge?.[Symbol.asyncDispose]();
      await ofOrders?.stop();
      await ofShoppers?.stop();
    });

    /** Responses to writes, in every protocol. */
    async function ledgers(): Promise<(number | undefined)[]> {
      const { ledger } = await native.call(SupplyService.method.getLedger, { productId: "mug" });
      const answers = await Promise.all(
        others.map((transport) => createClient(SupplyService, transport).getLedger({ productId: "mug" })),
      );
      return [ledger?.declared, ...answers.map((answer) => answer.ledger?.declared)];
    }

    /** Responses to reads and watches, in every protocol. */
    async function reads(): Promise<(number | undefined)[]> {
      const { count } = await native.call(Inventory.method.get, { id: "mug" });
      const answers = others.map(async (transport) => {
        const client = createClient(StockService, transport);
        const { stock } = await client.getStock({ productId: "mug" });
        for await (const { stocks } of client.watchStock({ productIds: ["mug"] })) {
          return [stock?.available, stocks[0]?.available];
        }
        assert.fail("the watch ended without a message");
      });
      return [Number(count), ...(await Promise.all(answers)).flat()];
    }

    it("handles writes, and no reads", async () => {
      assert.deepEqual(await ledgers(), Array(4).fill(OF_ORDERS));
      assert.deepEqual(await reads(), Array(7).fill(OF_SHOPPERS));
      // Reflection is a bidirectional stream, so a plain POST is rejected. A server without reflection responds with 404.
      const { status } = await ask(edge, REFLECTION, { body: "" });
      assert.ok([415, 505].includes(status), `${status}: the schema comes from the shoppers' server`);
    });

    it("is replaced by the shoppers' servers while it is unavailable", async () => {
      await ofOrders.kill9();
      await until(
        async () => (await ledgers()).every((declared) => declared === OF_SHOPPERS),
        "the shoppers' server stands in",
      );
      await ofOrders.restart();
      await declare(ofOrders, OF_ORDERS);
      await until(
        async () => (await ledgers()).every((declared) => declared === OF_ORDERS),
        "it is asked again",
      );
    });

    it("handles no reads while the shoppers' servers are unavailable", async () => {
      await ofShoppers.kill9();
      await assert.rejects(native.call(Inventory.method.get, { id: "mug" }));
      assert.deepEqual(await ledgers(), Array(4).fill(OF_ORDERS));
    });
  });
}
