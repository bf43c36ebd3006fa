import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  BatchGetStockRequestSchema,
  BatchGetStockResponseSchema,
  GetStockRequestSchema,
} from "../../gen/inventory/v1/stock_pb.ts";
import { type Bench, requireProgram } from "./bench-context.ts";
import { fillCatalog, productIdOf } from "./catalog.ts";
import { askOnce, enveloped } from "./load/frames.ts";
import { h2load } from "./load/h2load.ts";
import { startPinnedRedis, startService } from "./processes.ts";
import { perCore, takeTurns } from "./rounds.ts";

const PRODUCTS = 1_000;
const PRODUCTS_PER_BATCH = 100;
const ENVELOPE_BYTES = 5;
const SERVICE = "/inventory.v1.StockService";
const PRODUCT_IDS = Array.from({ length: PRODUCTS_PER_BATCH }, (_, index) => productIdOf(index + 1));

/** Cost of a product in a batch of a hundred, compared with a single call. */
export const measureBatch: Bench = async (context) => {
  requireProgram("h2load");
  await using servers = new AsyncDisposableStack();
  const redis = servers.use(await startPinnedRedis());
  await fillCatalog(redis.url, PRODUCTS);
  const service = servers.use(await startService(redis));
  const frames = {
    GetStock: toBinary(GetStockRequestSchema, create(GetStockRequestSchema, { productId: productIdOf(1) })),
    BatchGetStock: toBinary(
      BatchGetStockRequestSchema,
      create(BatchGetStockRequestSchema, { productIds: PRODUCT_IDS }),
    ),
  };
  const load = async (name: keyof typeof frames) => {
    const [path, frame] = [`${SERVICE}/${name}`, enveloped(frames[name])];
    const bodyFile = join(redis.dir, `${name}.bin`);
    await writeFile(bodyFile, frame);
    const answerBytes = (await askOnce(service.url, path, frame)).length;
    return () => h2load(service, { ...context, path, bodyFile, answerBytes });
  };
  const answer = await askOnce(service.url, `${SERVICE}/BatchGetStock`, enveloped(frames.BatchGetStock));
  const { stocks } = fromBinary(BatchGetStockResponseSchema, answer.subarray(ENVELOPE_BYTES));
  if (stocks.length !== PRODUCTS_PER_BATCH) {
    throw new Error(`${stocks.length} of ${PRODUCTS_PER_BATCH} products were returned`);
  }
  const turns = await takeTurns(
    { BatchGetStock: await load("BatchGetStock"), GetStock: await load("GetStock") },
    context,
  );
  return [
    {
      what: `BatchGetStock of ${PRODUCTS_PER_BATCH}, gRPC over h2c`,
      unit: "products/s per core",
      here: perCore(turns.BatchGetStock).map((rate) => rate * PRODUCTS_PER_BATCH),
      peer: { name: "GetStock", there: perCore(turns.GetStock) },
      target: { atLeast: 20 },
    },
  ];
};
