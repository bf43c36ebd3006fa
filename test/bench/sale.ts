import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Redis } from "ioredis";
import { ReserveRequestSchema } from "../../gen/inventory/v1/reservation_pb.ts";
import { GetStockRequestSchema } from "../../gen/inventory/v1/stock_pb.ts";
import { freePort } from "../support/free-port.ts";
import { scrape } from "../support/scrape.ts";
import { type Bench, requireProgram } from "./bench-context.ts";
import { fillCatalog, productIdOf } from "./catalog.ts";
import { askOnce, enveloped } from "./load/frames.ts";
import { h2load } from "./load/h2load.ts";
import { LoadProcess } from "./load/load-process.ts";
import { startPinnedRedis, startService } from "./processes.ts";
import { perCore, type Turn, takeTurns, values } from "./rounds.ts";
import { quantile } from "./statistics.ts";

const UNITS = 100;
const BUYERS = 10_000;
/** Buyers at once in the sale. */
const CROWD = 500;
/** Callers at once while the latency of refusals is measured. */
const CALLERS = 50;
const PRODUCT_ID = productIdOf(1);
const RESERVE = "/inventory.v1.ReservationService/Reserve";
const GET_STOCK = "/inventory.v1.StockService/GetStock";
const IDLE_SECONDS = 2;

const FRAMES = {
  refusal: enveloped(
    toBinary(
      ReserveRequestSchema,
      create(ReserveRequestSchema, {
        // A refused reservation leaves nothing behind, so that one ID is refused again and again.
        reservationId: "late-buyer",
        lines: [{ productId: PRODUCT_ID, quantity: 1 }],
        ttl: durationFromMs(600_000),
      }),
    ),
  ),
  GetStock: enveloped(
    toBinary(GetStockRequestSchema, create(GetStockRequestSchema, { productId: PRODUCT_ID })),
  ),
};

/** A flash sale: 100 units for 10,000 buyers, and the refusals after it, compared with reads of the same product. */
export const measureSale: Bench = async (context) => {
  requireProgram("h2load");
  await using servers = new AsyncDisposableStack();
  const redis = servers.use(await startPinnedRedis());
  await fillCatalog(redis.url, 1, { units: UNITS });
  const adminPort = await freePort();
  const adminUrl = `http://127.0.0.1:${adminPort}`;
  const service = servers.use(await startService(redis, { ADMIN_PORT: String(adminPort) }));
  const load = servers.use(new LoadProcess(context.signal));
  const { url } = service;

  const { answer: sale } = await load.run("buy", {
    url,
    productId: PRODUCT_ID,
    buyers: BUYERS,
    callers: CROWD,
  });
  const refusedByCode = await refusalsOf(adminUrl);
  if (sale.reserved !== UNITS || refusedByCode !== sale.refused) {
    throw new Error(
      `${sale.reserved} of ${UNITS} units were reserved; ${sale.refused} buyers had no unit, ${refusedByCode} responses said that stock is short`,
    );
  }
  context.note(
    `the sale: ${UNITS} units reserved and ${sale.refused} buyers refused in ${sale.seconds.toFixed(2)} s, p99 ${quantile(sale.latenciesMs, 0.99).toFixed(0)} ms`,
  );

  const bodyFiles = { refusal: join(redis.dir, "refusal.bin"), GetStock: join(redis.dir, "GetStock.bin") };
  await writeFile(bodyFiles.refusal, FRAMES.refusal);
  await writeFile(bodyFiles.GetStock, FRAMES.GetStock);
  const answerBytes = (await askOnce(url, GET_STOCK, FRAMES.GetStock)).length;
  const calls = await startCounting(redis.url);
  servers.defer(calls.stop);
  const idle = await calls.perSecond(
    () => new Promise<void>((resolve) => setTimeout(resolve, IDLE_SECONDS * 1_000)),
  );
  const callsPerSecond: number[] = [];
  const refuse = async (): Promise<Turn> => {
    const before = await refusalsOf(adminUrl);
    let turn: Turn | undefined;
    const perSecond = await calls.perSecond(async () => {
      turn = await h2load(service, {
        ...context,
        path: RESERVE,
        bodyFile: bodyFiles.refusal,
        answerBytes: 0,
      });
    });
    callsPerSecond.push(Math.max(0, perSecond - idle));
    const refused = (await refusalsOf(adminUrl)) - before;
    if (turn === undefined || refused < turn.value * context.seconds * REFUSED_SHARE_MIN) {
      throw new Error(`Only ${refused} calls were refused for want of stock`);
    }
    return turn;
  };
  const delay = async (): Promise<Turn> => {
    const buyers = BUYERS / 5;
    const { answer } = await load.run("buy", { url, productId: PRODUCT_ID, buyers, callers: CALLERS });
    return { value: quantile(answer.latenciesMs, 0.99) };
  };
  const turns = await takeTurns(
    {
      refusals: refuse,
      GetStock: () =>
        h2load(service, { ...context, path: GET_STOCK, bodyFile: bodyFiles.GetStock, answerBytes }),
      "p99 of a refusal": delay,
    },
    context,
  );
  return [
    {
      what: "Reserve of a sold-out product, refused",
      unit: "refusals/s per core",
      here: perCore(turns.refusals),
      peer: { name: "GetStock of it", there: perCore(turns.GetStock) },
      target: { atLeast: 0.6 },
    },
    {
      what: "Script calls that reach Redis during refusals, beyond those of an idle service",
      unit: "calls/s",
      here: callsPerSecond.slice(-context.rounds),
      target: { atMost: 50 },
    },
    { what: `A refusal, ${CALLERS} callers, p99`, unit: "ms", here: values(turns["p99 of a refusal"]) },
  ];
};

/** h2load reports its rate over a little less than the time in which it makes calls. */
const REFUSED_SHARE_MIN = 0.9;

/** Reserve calls that had the status FAILED_PRECONDITION so far. */
async function refusalsOf(adminUrl: string): Promise<number> {
  const labels = { grpc_method: "Reserve", grpc_code: "FailedPrecondition" };
  return (await scrape(adminUrl)).value("grpc_server_handled_total", labels) ?? 0;
}

/** Counts the scripts that clients call, by Redis's own statistics. */
async function startCounting(redisUrl: string) {
  const client = new Redis(redisUrl);
  const count = async (): Promise<number> => {
    const info = await client.info("commandstats");
    const found = info.matchAll(/^cmdstat_(?:eval|evalsha|fcall):calls=(\d+)/gm);
    return [...found].reduce((sum, [, calls]) => sum + Number(calls), 0);
  };
  return {
    stop: () => client.disconnect(),
    perSecond: async (action: () => Promise<void>): Promise<number> => {
      const [before, startedAt] = [await count(), performance.now()];
      await action();
      return ((await count()) - before) / ((performance.now() - startedAt) / 1_000);
    },
  };
}
