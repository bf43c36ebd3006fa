import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { createYoga } from "graphql-yoga";
import { StockService } from "./gen/inventory/v1/stock_pb.ts";
import { createStockLoader } from "./remaining-stock.ts";
import { schema } from "./schema.ts";

const { INVENTORY_URL, PORT } = process.env;

const transport = createGrpcTransport({
  baseUrl: INVENTORY_URL || "http://127.0.0.1:8080",
  // Finds a server whose machine was lost, which does not close its connections.
  pingIntervalMs: 10_000,
  pingTimeoutMs: 1_000,
});
const stock = createClient(StockService, transport);

// Subscriptions arrive as server-sent events, which Yoga has built in.
const yoga = createYoga({
  schema,
  context: () => ({ stock, stockLoader: createStockLoader(stock) }),
});

const server = createServer(yoga);
server.listen(Number(PORT || 4000), "127.0.0.1", () => {
  const { port } = server.address() as AddressInfo;
  console.log(`http://127.0.0.1:${port}${yoga.graphqlEndpoint}`);
});
