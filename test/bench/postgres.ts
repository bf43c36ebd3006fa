import { type Bench, requireProgram } from "./bench-context.ts";
import { fillCatalog, productIdOf, UNITS } from "./catalog.ts";
import { LoadProcess } from "./load/load-process.ts";
import { buildGoPeer, startGoPostgresPeer } from "./peers/go-peer.ts";
import { startPostgres } from "./peers/postgres.ts";
import {
  type Contestant,
  type CpuMeter,
  cpuOf,
  startPinnedRedis,
  startService,
  together,
  whileWatching,
} from "./processes.ts";
import { perCore, type Turn, takeTurns, values, warmUp } from "./rounds.ts";

const PRODUCTS = 1_000;
const HOT_PRODUCT = PRODUCTS + 1;
const CALLERS = 50;
const PRODUCT_IDS = Array.from({ length: PRODUCTS }, (_, index) => productIdOf(index + 1));
const GO = "a Go service with pgx";

/**
 * What a shop would use instead: the same reservations as transactions of PostgreSQL, by pgbench and by a gRPC service in
 * front of it. Both have as many callers as this service, which keeps its data in a Redis that syncs every write.
 */
export const measurePostgres: Bench = async (context) => {
  requireProgram("postgres");
  await using servers = new AsyncDisposableStack();
  const redis = servers.use(await startPinnedRedis());
  await fillCatalog(redis.url, HOT_PRODUCT);
  const service = servers.use(await startService(redis));
  const postgres = servers.use(await startPostgres([...PRODUCT_IDS, productIdOf(HOT_PRODUCT)], UNITS));
  const built = await buildGoPeer("postgres");
  const go = built.binary && servers.use(await startGoPostgresPeer(built.binary, postgres.url, CALLERS));
  if (!go) {
    context.note(`Left out: ${GO}: ${built.missing}`);
  }
  const load = servers.use(new LoadProcess(context.signal));

  const callService = async (
    server: Contestant,
    store: CpuMeter,
    productIds: readonly string[],
  ): Promise<Turn> => {
    const asked = { url: server.url, productIds, callers: CALLERS, commits: true, seconds: context.seconds };
    const { result, serverBusy } = await whileWatching(together(server, store), () =>
      load.run("order", asked),
    );
    const { orders, refused, seconds } = result.answer;
    if (refused > 0) {
      context.note(`${refused} calls were refused and retried`);
    }
    return { value: orders / seconds, serverBusy, loadBusy: result.cpuSeconds / seconds };
  };
  const pgbench = async (firstProduct: number, lastProduct: number): Promise<Turn> => {
    const { result, serverBusy } = await whileWatching(postgres, () =>
      postgres.pgbench({ ...context, firstProduct, lastProduct }),
    );
    return { value: result, serverBusy };
  };
  const serviceTurn = () => callService(service, cpuOf(redis), PRODUCT_IDS);
  await warmUp([serviceTurn], context.signal);
  const turns = await takeTurns(
    {
      service: serviceTurn,
      pgbench: () => pgbench(1, PRODUCTS),
      [GO]: go ? () => callService(go, postgres, PRODUCT_IDS) : undefined,
      "service, one product": () => callService(service, cpuOf(redis), [productIdOf(HOT_PRODUCT)]),
      "pgbench, one product": () => pgbench(HOT_PRODUCT, HOT_PRODUCT),
    },
    { ...context, note: (line) => context.note(line.replace("server ", "servers and their stores ")) },
  );
  await checkTotals(postgres.query);
  const what = "Reserve + Commit, 1,000 products, 50 callers";
  const goTurns = turns[GO] ?? [];
  return [
    {
      what,
      unit: "orders/s",
      here: values(turns.service),
      peer: { name: "PostgreSQL by pgbench, 50 clients", there: values(turns.pgbench) },
      target: { atLeast: 1.5 },
    },
    ...(goTurns.length === 0
      ? []
      : [
          {
            what,
            unit: "orders/s",
            here: values(turns.service),
            peer: { name: `${GO} and PostgreSQL`, there: values(goTurns) },
            target: { atLeast: 3 },
          },
        ]),
    {
      what: "Reserve + Commit, one hot product, 50 callers",
      unit: "orders/s",
      here: values(turns["service, one product"]),
      peer: { name: "PostgreSQL by pgbench, 50 clients", there: values(turns["pgbench, one product"]) },
      target: { atLeast: 15 },
    },
    {
      what: `${what}, by the CPU time of the service and Redis`,
      unit: "orders/CPU s",
      here: perCore(turns.service),
      peer: { name: "PostgreSQL's CPU time by pgbench", there: perCore(turns.pgbench) },
    },
  ];
};

/** Checks that PostgreSQL did the work: each committed order has sold a unit, and has a history of two entries. */
async function checkTotals(query: (sql: string) => Promise<string>): Promise<void> {
  const [sold, committed, history, reservations] = (
    await query(
      `SELECT (SELECT sum(sold) FROM ledgers), (SELECT count(*) FROM reservations WHERE state = 'committed'),
        (SELECT count(*) FROM history), (SELECT count(*) FROM reservations)`,
    )
  )
    .split("|")
    .map(Number);
  if (!(Number(sold) > 0) || sold !== committed || history !== Number(committed) + Number(reservations)) {
    throw new Error(
      `PostgreSQL has sold ${sold} units in ${committed} of ${reservations} orders, ${history} changes`,
    );
  }
}
