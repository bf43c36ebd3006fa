/**
 * The whole of the events under every fault at once: `npm run kafka:soak [-- MINUTES]`, 20 minutes unless given.
 * KAFKA_TEST_SEED repeats a run's choices. The exit code is 1 if anything was lost, held back or slow.
 */
import { once } from "node:events";
import { setTimeout as wait } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { pino } from "pino";
import { readConfig } from "../../../server/config.ts";
import { createKafka } from "../../../server/kafka/kafkajs/client.ts";
import { Cluster } from "../../../server/kafka/kafkajs/cluster.ts";
import { firingAlerts, type Phase } from "../../support/alert-rules.ts";
import { startAppProcess } from "../../support/app.ts";
import { freePort } from "../../support/free-port.ts";
import { type Scrape, scrape } from "../../support/scrape.ts";
import { until } from "../../support/until.ts";
import { newSeed, openStore, randomFrom, shuffle, startPlatform, untilConsumed } from "../platform.ts";
import { Seller } from "../seller.ts";
import { DRAIN_MS_MAX, Faults } from "./faults.ts";
import { Letters } from "./letters.ts";
import type { OrdersOptions, OrdersReport } from "./orders-worker.ts";
import { Sellers } from "./sellers.ts";
import { wrongEvents, wrongLetters, wrongStock } from "./verify.ts";

const MINUTES_DEFAULT = 20;
/** The part of the run in which Orders is alone, to compare with: half before the events, half after them. */
const ALONE_PART = 0.1;
/** So short in a short run that each fault occurs. */
const FAULT_INTERVAL_MS_MAX = 20_000;
const FAULTS_PER_RUN_MIN = 8;
const SCRAPE_INTERVAL_MS = 5_000;
const PRODUCTS = 50;
const SHOPPERS = 4;
const SHOPPER_PAUSE_MS = 20;
/** An alert on an increase has forgotten it by then. */
const AFTER_MINUTES = 35;

class Orders {
  readonly #worker: Worker;

  constructor(options: OrdersOptions) {
    this.#worker = new Worker(new URL("./orders-worker.ts", import.meta.url), { workerData: options });
  }

  async report(request: "report" | "stop" = "report"): Promise<OrdersReport> {
    this.#worker.postMessage(request);
    const [report] = (await once(this.#worker, "message")) as [OrdersReport];
    return report;
  }
}

function quantile(values: readonly number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
}

async function soak(lengthMs: number, seed: number): Promise<boolean> {
  const random = randomFrom(seed);
  await using platform = await startPlatform({ durable: true, isBrokerNice: true });
  const adminPort = await freePort();
  const adminUrl = `http://127.0.0.1:${adminPort}`;
  await using app = await startAppProcess({
    ...platform.environment,
    ADMIN_PORT: String(adminPort),
    KAFKA_CREATE_TOPICS: "on",
  });
  await using store = await openStore(platform);
  const { kafka } = readConfig(platform.environment);
  if (kafka === undefined) {
    throw new Error("The environment has no brokers");
  }
  const cluster = new Cluster(createKafka(kafka, "soak", pino({ level: "silent" })));
  const productIds = Array.from({ length: PRODUCTS }, (_, n) => `product-${n}`);
  for (const productId of productIds) {
    await store.putProduct({ productId, declared: 10_000, details: undefined, updateTimeMicros: 1 });
  }
  const orders = new Orders({
    url: app.url,
    productIds,
    shoppers: SHOPPERS,
    pauseMs: SHOPPER_PAUSE_MS,
    seed,
  });
  // Not the first seconds, in which code is compiled.
  await wait(Math.min(lengthMs / 20, 10_000));
  await orders.report();
  const ordersAlone = async (): Promise<readonly number[]> => {
    await wait((lengthMs * ALONE_PART) / 2);
    return (await orders.report()).durationsMs;
  };
  const before = await ordersAlone();

  const scrapes: Scrape[] = [];
  let worstDelayMs = 0;
  let worstHeapMb = 0;
  const watch = setInterval(async () => {
    try {
      const scraped = await scrape(adminUrl);
      scrapes.push(scraped);
      worstDelayMs = Math.max(worstDelayMs, (scraped.value("nodejs_eventloop_lag_max_seconds") ?? 0) * 1_000);
      worstHeapMb = Math.max(
        worstHeapMb,
        (scraped.value("process_resident_memory_bytes") ?? 0) / 1024 / 1024,
      );
    } catch (error) {
      process.stdout.write(`the metrics cannot be read: ${error}\n`);
    }
  }, SCRAPE_INTERVAL_MS);

  const seller = new Seller(productIds, random, Date.now() - 3_600_000);
  const sellers = new Sellers({ platform, cluster, seller, random });
  const letters = new Letters(cluster);
  const faults = new Faults(platform, cluster, sellers, letters);
  const faultIntervalMs = Math.min(FAULT_INTERVAL_MS_MAX, (lengthMs * (1 - ALONE_PART)) / FAULTS_PER_RUN_MIN);
  const end = performance.now() + lengthMs * (1 - ALONE_PART);
  for (let round: (() => Promise<void>)[] = []; performance.now() < end; ) {
    await wait(Math.min(faultIntervalMs, Math.max(0, end - performance.now())));
    if (performance.now() < end) {
      round = round.length === 0 ? shuffle(faults.all(), random) : round;
      await round.pop()?.();
    }
  }
  await sellers.stop();
  const during = (await orders.report()).durationsMs;
  await untilConsumed(platform.kafka, DRAIN_MS_MAX);
  await orders.report();
  const alone = [...before, ...(await ordersAlone())];
  const { bought, refused, retries } = await orders.report("stop");
  await until(
    async () => {
      const scraped = await scrape(adminUrl);
      return (
        scraped.value("inventory_ingest_lag_messages") === 0 &&
        scraped.value("inventory_publish_lag_messages") === 0 &&
        scraped.value("inventory_ingest_up") === 1
      );
    },
    "nothing waits",
    DRAIN_MS_MAX,
  ).catch((error: unknown) => process.stdout.write(`${error}\n`));
  clearInterval(watch);
  const last = await scrape(adminUrl);
  await letters.collect();
  const { degraded } = (await (await fetch(`${app.url}/readyz`)).json()) as { degraded: string[] };

  const problems = [
    ...(await wrongStock(store, seller, bought)),
    ...(await wrongEvents(store, sellers)),
    ...wrongLetters(sellers, letters),
    ...degraded,
  ];
  const [p99Alone, p99During] = [quantile(alone, 0.99), quantile(during, 0.99)];
  const fired = await firedAlerts(scrapes);
  const left = await firedAlerts([...scrapes, last], { minutes: AFTER_MINUTES, first: last });
  const [lag, seconds] = ["inventory_ingest_lag_messages", "inventory_ingest_lag_seconds"].map((name) =>
    last.value(name),
  );
  if (lag !== 0 || seconds !== 0) {
    problems.push(`the lag is ${lag} messages, ${seconds} s`);
  }
  if ((last.value("inventory_dead_letters_logged_total") ?? 0) > 0) {
    problems.push("dead letters were only logged");
  }
  if (left.length > 0) {
    problems.push(`alerts are left firing: ${left.join(", ")}`);
  }
  if (!(p99During <= 2 * p99Alone)) {
    problems.push("Orders' p99 is more than twice that without events");
  }
  const kinds = new Map<string, number>();
  for (const { kind } of sellers.bad.values()) {
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  printTable([
    [
      "good events sent (and committed in transactions)",
      `${sellers.goodEvents} (${sellers.committed.length})`,
    ],
    ["events in aborted transactions", sellers.aborted.length],
    ["messages with a fault", sellers.bad.size],
    ...[...kinds].sort().map(([kind, count]): [string, number] => [`  ${kind}`, count]),
    [
      "dead letters, of which shortened",
      `${letters.total}, ${last.value("inventory_dead_letters_shortened_total")}`,
    ],
    ["sends that were repeated", sellers.retries],
    ...faults.counts(),
    ["consumers replaced", last.value("inventory_consumers_replaced_total") ?? "?"],
    [
      "purchases, refused, calls retried",
      `${[...bought.values()].reduce((sum, n) => sum + n, 0)}, ${refused}, ${retries}`,
    ],
    ["lag at the end, messages and seconds", `${lag}, ${seconds}`],
    ["alerts during the run", fired.join(", ") || "none"],
    ["alerts left firing", left.join(", ") || "none"],
    ["longest event-loop delay, ms", worstDelayMs.toFixed(0)],
    ["largest resident memory, MiB", worstHeapMb.toFixed(0)],
    ["Orders without events: calls, p50, p99, ms", figures(alone)],
    ["Orders during the run: calls, p50, p99, ms", figures(during)],
  ]);
  for (const problem of problems.slice(0, 50)) {
    process.stdout.write(`FAILED: ${problem}\n`);
  }
  process.stdout.write(problems.length === 0 ? "passed\n" : `${problems.length} problems; seed ${seed}\n`);
  await cluster.close();
  return problems.length === 0;
}

const figures = (durations: readonly number[]): string =>
  `${durations.length}, ${quantile(durations, 0.5).toFixed(1)}, ${quantile(durations, 0.99).toFixed(1)}`;

function printTable(rows: readonly (readonly [string, string | number])[]): void {
  const width = Math.max(...rows.map(([name]) => name.length));
  for (const [name, value] of rows) {
    process.stdout.write(`${name.padEnd(width)}  ${value}\n`);
  }
}

/** The alerts on events and on Orders that fire at the end of a timeline, or at some time if it has no last phase. */
async function firedAlerts(scrapes: readonly Scrape[], after?: Phase): Promise<string[]> {
  const phases = scrapes.map((first): Phase => ({ minutes: SCRAPE_INTERVAL_MS / 60_000, first }));
  const groups = ["inventory-events", "inventory-objective", "inventory-servers", "inventory-redis"];
  const found = await Promise.all(
    groups.map((group) =>
      firingAlerts(
        group,
        after === undefined ? phases : [...phases, after],
        after === undefined ? "ever" : "now",
      ),
    ),
  );
  return found.flat();
}

const minutes = Number(process.argv[2] ?? MINUTES_DEFAULT);
if (!(minutes >= 0.5 && minutes <= 1_440)) {
  process.stderr.write(
    `The length is "${process.argv[2]}"; it must be a number of minutes from 0.5 to 1440\n`,
  );
  process.exit(2);
}
const seed = newSeed();
process.stdout.write(`seed ${seed}, ${minutes} minutes\n`);
process.exitCode = (await soak(minutes * 60_000, seed)) ? 0 : 1;
