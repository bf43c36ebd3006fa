import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { Redis } from "ioredis";
import { GetStockRequestSchema } from "../../gen/inventory/v1/stock_pb.ts";
import { InventoryRequestSchema } from "../../gen/inventory_pb.ts";
import { type Bench, requireProgram } from "./bench-context.ts";
import { fillCatalog, productIdOf } from "./catalog.ts";
import { askOnce, enveloped } from "./load/frames.ts";
import { h2load } from "./load/h2load.ts";
import type { Outcome } from "./outcome.ts";
import { buildGoPeer, startGoPeer } from "./peers/go-peer.ts";
import { type Contestant, startNodePeer, startPinnedRedis, startService } from "./processes.ts";
import { perCore, takeTurns, warmUp } from "./rounds.ts";

const SERVICE = "service";
const GO = "grpc-go, one GET a request";
const PRODUCTS = 1_000;
const PRODUCT_ID = productIdOf(1);

const TARGETS: Readonly<Record<string, number>> = {
  "connect-node's adapter": 6,
  "bare node:http2": 0.8,
  "@grpc/grpc-js": 1.2,
  [GO]: 1,
};

const METHODS = {
  GetStock: {
    path: "/inventory.v1.StockService/GetStock",
    frame: enveloped(
      toBinary(GetStockRequestSchema, create(GetStockRequestSchema, { productId: PRODUCT_ID })),
    ),
  },
  "Inventory.Get": {
    path: "/Inventory/Get",
    frame: enveloped(toBinary(InventoryRequestSchema, create(InventoryRequestSchema, { id: PRODUCT_ID }))),
  },
} as const;

/** Reads over native gRPC, compared with other servers. */
export const measureUnary: Bench = async (context) => {
  requireProgram("h2load");
  await using servers = new AsyncDisposableStack();
  const redis = servers.use(await startPinnedRedis());
  await fillCatalog(redis.url, PRODUCTS);
  const env = { REDIS_URL: redis.url };
  const service = servers.use(await startService(redis));
  const stock = servers.use(await startNodePeer("stock-connect.ts", { ...env, PROTOCOL: "h2" }));
  const grpcJs = servers.use(await startNodePeer("grpc-js.ts", env));
  const built = await buildGoPeer(".");
  const go = built.binary && servers.use(await startGoPeer(built.binary, redis.url));
  if (go) {
    await setPlainCount(redis.url);
  } else {
    context.note(`Left out: ${GO}: ${built.missing}`);
  }

  const outcomes: Outcome[] = [];
  for (const [name, { path, frame }] of Object.entries(METHODS)) {
    const bodyFile = join(redis.dir, `${name}.bin`);
    await writeFile(bodyFile, frame);
    const answer = await askOnce(service.url, path, frame);
    await using bare = await startNodePeer("bare-http2.ts", { BODY: answer.toString("base64") });
    const isLegacy = name === "Inventory.Get";
    const contestants = {
      [SERVICE]: service,
      "connect-node's adapter": stock,
      "bare node:http2": bare,
      "@grpc/grpc-js": grpcJs,
      ...(go && isLegacy && { [GO]: go }),
    };
    const turnOf = (server: Contestant) => () =>
      h2load(server, { ...context, path, bodyFile, answerBytes: answer.length });
    for (const server of Object.values(contestants)) {
      await askOnce(server.url, path, frame);
    }
    const turns = Object.fromEntries(
      Object.entries(contestants).map(([peer, server]) => [peer, turnOf(server)]),
    );
    await warmUp(Object.values(turns), context.signal);
    const rates = await takeTurns(turns, {
      ...context,
      note: (line) => context.note(`${name}: ${line}`),
    });
    const { [SERVICE]: here = [], ...others } = rates;
    for (const [peer, there] of Object.entries(others)) {
      outcomes.push({
        what: `${name}, gRPC over h2c`,
        unit: "requests/s per core",
        here: perCore(here),
        peer: { name: peer, there: perCore(there) },
        target: { atLeast: TARGETS[peer] ?? 0 },
      });
    }
  }
  return outcomes;
};

/** The count in the form of the Go service. */
async function setPlainCount(redisUrl: string): Promise<void> {
  const client = new Redis(redisUrl);
  await client.set(PRODUCT_ID, "1000000000");
  client.disconnect();
}
