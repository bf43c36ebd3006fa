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
import { cpuMicros, type Turn, takeTurns, values, warmUp } from "./rounds.ts";

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
  const pgbench = async (form: "transactions" | "statements", isHot = false): Promise<Turn> => {
    const products = isHot
      ? { firstProduct: HOT_PRODUCT, lastProduct: HOT_PRODUCT }
      : { firstProduct: 1, lastProduct: PRODUCTS };
    const { result, serverBusy } = await whileWatching(postgres, () =>
      postgres.pgbench({ ...context, form, ...products }),
    );
    return { value: result, serverBusy };
  };
  const serviceTurn = () => callService(service, cpuOf(redis), PRODUCT_IDS);
  await warmUp([serviceTurn], context.signal);
  const turns = await takeTurns(
    {
      service: serviceTurn,
      pgbench: () => pgbench("transactions"),
      "pgbench, one statement each": () => pgbench("statements"),
      [GO]: go ? () => callService(go, postgres, PRODUCT_IDS) : undefined,
      "service, one product": () => callService(service, cpuOf(redis), [productIdOf(HOT_PRODUCT)]),
      "pgbench, one product": () => pgbench("transactions", true),
      "pgbench, one product, one statement each": () => pgbench("statements", true),
    },
    { ...context, note: (line) => context.note(line.replace("server ", "servers and their stores ")) },
  );
  await checkTotals(postgres.query);
  const goTurns = turns[GO];
  const inOrders = (
    what: string,
    here: readonly Turn[],
    name: string,
    there: readonly Turn[],
    atLeast?: number,
  ) => ({
    what,
    unit: "orders/s",
    here: values(here),
    peer: { name, there: values(there) },
    target: atLeast === undefined ? undefined : { atLeast },
  });
  const [what, hot] = ["Reserve + Commit, 1,000 products", "Reserve + Commit, one hot product"];
  const [transactions, statements] = ["PostgreSQL by pgbench", "the same, one statement a call"];
  return [
    inOrders(what, turns.service, transactions, turns.pgbench, 1.5),
    inOrders(what, turns.service, statements, turns["pgbench, one statement each"]),
    ...(goTurns === undefined || goTurns.length === 0
      ? []
      : [inOrders(what, turns.service, `${GO} and PostgreSQL`, goTurns, 3)]),
    inOrders(hot, turns["service, one product"], transactions, turns["pgbench, one product"], 15),
    inOrders(
      hot,
      turns["service, one product"],
      statements,
      turns["pgbench, one product, one statement each"],
    ),
    {
      what: `${what}, CPU time of the service and Redis`,
      unit: "µs an order",
      here: cpuMicros(turns.service),
      peer: { name: "that of PostgreSQL by pgbench", there: cpuMicros(turns.pgbench) },
    },
    ...(goTurns === undefined || goTurns.length === 0
      ? []
      : [
          {
            what: `${what}, CPU time of the service and Redis`,
            unit: "µs an order",
            here: cpuMicros(turns.service),
            peer: { name: `that of ${GO} and PostgreSQL`, there: cpuMicros(goTurns) },
          },
        ]),
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
