import { type Bench, type BenchContext, requireProgram } from "./bench-context.ts";
import { fillCatalog, productIdOf } from "./catalog.ts";
import { LoadProcess } from "./load/load-process.ts";
import { type Contestant, startPinnedRedis, startService, whileWatching } from "./processes.ts";
import { type Turn, takeTurns, values } from "./rounds.ts";
import { quantile } from "./statistics.ts";

const PRODUCTS = 1_000;
const PRODUCT_IDS = Array.from({ length: PRODUCTS }, (_, index) => productIdOf(index + 1));
const PER_CALL = 1_000;
/** Callers of Orders beside an import. */
const ORDER_CALLERS = 8;
const IMPORTED = 50_000;

/** Putting products by BatchPutProducts, compared with PutProduct; and what Orders notice of it. */
export const measureBulk: Bench = async (context) => {
  requireProgram("redis-server");
  await using servers = new AsyncDisposableStack();
  const redis = servers.use(await startPinnedRedis());
  await fillCatalog(redis.url, PRODUCTS);
  const service = servers.use(await startService(redis));
  const importer = servers.use(new LoadProcess(context.signal));
  const orders = servers.use(new LoadProcess(context.signal));
  const put = (perCall: number, callers: number) => () =>
    putProducts(service, importer, { perCall, callers, ...context });
  const turns = await takeTurns(
    {
      BatchPutProducts: put(PER_CALL, 1),
      PutProduct: put(1, 1),
      "BatchPutProducts, 4 callers": put(PER_CALL, 4),
      "PutProduct, 64 callers": put(1, 64),
      "Orders alone": () => orderP99(service, orders, context),
      "Orders beside an import": async () => {
        const importing = put(PER_CALL, 4)();
        const turn = await orderP99(service, orders, context);
        await importing;
        return turn;
      },
    },
    context,
  );
  const rates = values(turns.BatchPutProducts);
  context.note(
    `${IMPORTED.toLocaleString("en")} products: ${rates.map((rate) => (IMPORTED / rate).toFixed(1)).join(", ")} s`,
  );
  return [
    {
      what: `BatchPutProducts of ${PER_CALL.toLocaleString("en")}, one caller`,
      unit: "products/s",
      here: rates,
      peer: { name: "PutProduct, one caller", there: values(turns.PutProduct) },
      target: { atLeast: 10 },
    },
    {
      what: `BatchPutProducts of ${PER_CALL.toLocaleString("en")}, 4 callers`,
      unit: "products/s",
      here: values(turns["BatchPutProducts, 4 callers"]),
      peer: { name: "PutProduct, 64 callers", there: values(turns["PutProduct, 64 callers"]) },
    },
    {
      what: `p99 of Reserve and Commit, ${ORDER_CALLERS} callers, beside an import by 4`,
      unit: "ms",
      here: values(turns["Orders beside an import"]),
      peer: { name: "without the import", there: values(turns["Orders alone"]) },
    },
  ];
};

interface Putting extends BenchContext {
  readonly perCall: number;
  readonly callers: number;
}

async function putProducts(
  service: Contestant,
  load: LoadProcess,
  { perCall, callers, seconds }: Putting,
): Promise<Turn> {
  const { result, serverBusy } = await whileWatching(service, () =>
    load.run("putProducts", { url: service.url, perCall, callers, seconds }),
  );
  const { answer, cpuSeconds } = result;
  return { value: answer.products / answer.seconds, serverBusy, loadBusy: cpuSeconds / answer.seconds };
}

async function orderP99(service: Contestant, load: LoadProcess, { seconds }: BenchContext): Promise<Turn> {
  const { result, serverBusy } = await whileWatching(service, () =>
    load.run("order", {
      url: service.url,
      productIds: PRODUCT_IDS,
      callers: ORDER_CALLERS,
      commits: true,
      seconds,
    }),
  );
  const { answer, cpuSeconds } = result;
  return { value: quantile(answer.latenciesMs, 0.99), serverBusy, loadBusy: cpuSeconds / answer.seconds };
}
