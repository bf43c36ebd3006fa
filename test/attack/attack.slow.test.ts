import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, fork } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { after, before, describe, it } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { AUTH_TOKENS, bearer, TOKENS } from "../access/callers.ts";
import { type AppProcess, startAppProcess } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import type { AttackName, Order, Outcome } from "./attack.ts";

/** `npm run attack` takes five minutes, and measures. */
const isLong = process.env["ATTACK"] === "long";
const TIMES = isLong ? 10 : 1;
const DURATION_MS = isLong ? 12_000 : 300;
/** The heap limit that the image sets for a container of one gigabyte, the limit in the manifests. */
const NODE_OPTIONS = "--max-old-space-size=614";
/** Limit of the server's memory during the attacks, which run one after the other. It needs about 200 MB without any. */
const RSS_MB_MAX = isLong ? 1_024 : 700;
/** Limit of log lines per second caused by unauthenticated clients. */
const LOG_LINES_PER_SECOND_MAX = 30;
const ORDERS_AT_LEAST = 20;
/** Interval between the starts of orders. No order waits for the one before, so that every one meets a pause of the server. */
const ORDER_INTERVAL_MS = 20;
const PRODUCTS = 1_000;

const ATTACKS: readonly AttackName[] = [
  "slow loris",
  "rapid reset",
  "settings flood",
  "ping flood",
  "invalid frames",
  "header bombs",
  "continuation flood",
  "giant messages",
  "compressed bombs",
  "idle connections",
  "readers with no window",
  "streams opened and left",
  "bad tokens",
];

/** Attacks that also reach Connect with fast paths, and found different faults there. */
const CONNECT_ATTACKS: readonly AttackName[] = ["readers with no window", "streams opened and left"];

describe("under attack", () => underAttack({ LANE: "on", attacks: ATTACKS }));
describe("under attack, on the Connect path", () => underAttack({ LANE: "off", attacks: CONNECT_ATTACKS }));
// The tests of the edges check that public traffic does not reach such a server. This one measures the benefit.
if (isLong) {
  const canPin = process.platform === "linux" && availableParallelism() > 1;
  const skip = need("redis-server").missing ?? (canPin ? false : "it needs Linux and two processors");
  describe("under attack, with a separate server for Orders", { skip }, () =>
    underAttack({ LANE: "on", attacks: ATTACKS, hasOwnServer: true }),
  );
}

interface Setting {
  readonly LANE: string;
  readonly attacks: readonly AttackName[];
  /** Whether Orders calls another server than the attacked one, on the same Redis. */
  readonly hasOwnServer?: boolean;
}

function underAttack({ LANE, attacks, hasOwnServer = false }: Setting): void {
  let redis: RedisServer | undefined;
  /** The attacked server. */
  let server: AppProcess;
  let ordersServer: AppProcess;
  let attacker: ChildProcess;
  let session: Http2SessionManager;
  let orders: Client<typeof ReservationService>;
  let sold = 0;

  before(async () => {
    redis = hasOwnServer ? await startRedis() : undefined;
    const environment = {
      NODE_OPTIONS,
      LANE,
      AUTH_TOKENS,
      TRUSTED_PROXIES: "127.0.0.1",
      SHED_DELAY_MS: "200",
      ...(redis && { REDIS_URL: redis.url }),
    };
    server = await startAppProcess(environment);
    ordersServer = hasOwnServer ? await startAppProcess(environment) : server;
    attacker = fork(new URL("./attack.ts", import.meta.url));
    if (redis !== undefined) {
      runOn(0, server.process().pid, attacker.pid);
      runOn(1, ordersServer.process().pid, redis.pid, process.pid);
    }
    session = new Http2SessionManager(ordersServer.url);
    const transport = (token: string) =>
      createGrpcTransport({
        baseUrl: ordersServer.url,
        sessionManager: session,
        interceptors: [bearer(token)],
      });
    orders = createClient(ReservationService, transport(TOKENS.orders));
    const supply = createClient(SupplyService, transport(TOKENS.supply));
    const ids = Array.from({ length: PRODUCTS }, (_, each) => `p${each}`);
    await Promise.all(
      ids.map((productId) =>
        supply.putProduct({
          productId,
          declared: 1_000_000,
          product: { name: productId.repeat(20), price: 1 },
        }),
      ),
    );
  });
  after(async () => {
    session.abort();
    attacker.kill();
    if (ordersServer !== server) await ordersServer.stop();
    await server.stop();
    await redis?.stop();
  });

  /** Places orders (Reserve, Commit) at intervals until `isOver`. Returns the time of each call, ms. */
  async function sell(isOver: () => boolean): Promise<number[]> {
    const took: number[] = [];
    const faults: unknown[] = [];
    const timed = async (call: Promise<unknown>): Promise<void> => {
      const startedAt = performance.now();
      await call;
      took.push(performance.now() - startedAt);
    };
    const order = async (): Promise<void> => {
      sold += 1;
      const reservationId = `order-${sold}`;
      await timed(orders.reserve({ reservationId, lines: [{ productId: "p1", quantity: 1 }] }));
      await timed(orders.commitReservation({ reservationId }));
    };
    const made: Promise<unknown>[] = [];
    while (!isOver() || made.length < ORDERS_AT_LEAST) {
      made.push(order().catch((fault: unknown) => faults.push(fault)));
      await pause(ORDER_INTERVAL_MS);
    }
    await Promise.all(made);
    assert.deepEqual(faults, []);
    return took;
  }

  function sellFor(ms: number): Promise<number[]> {
    const endsAt = performance.now() + ms;
    return sell(() => performance.now() >= endsAt);
  }

  async function attack(name: AttackName): Promise<string> {
    const target = { port: server.port, times: TIMES, durationMs: DURATION_MS, isLong };
    attacker.send({ name, target } satisfies Order);
    const [outcome]: Outcome[] = await once(attacker, "message");
    if (outcome === undefined || "failed" in outcome) {
      assert.fail(outcome?.failed);
    }
    return outcome.done;
  }

  let quietMs = Number.POSITIVE_INFINITY;

  it("sells without an attack", async (t) => {
    // Warm-up.
    await sellFor(isLong ? 5_000 : 0);
    const took = await sellFor(isLong ? 5_000 : 0);
    quietMs = percentile99(took);
    t.diagnostic(`quiet: p99 ${quietMs.toFixed(1)} ms of ${took.length} calls, ${rssMb(server)} MB`);
  });

  for (const name of attacks) {
    it(`${name}: Orders' calls succeed, memory and log are bounded`, async (t) => {
      const pid = server.process().pid;
      const linesBefore = countUnauthenticatedLines(await server.output());
      const startedAt = performance.now();
      let isOver = false;
      let mostMb = 0;
      const watch = setInterval(() => {
        mostMb = Math.max(mostMb, rssMb(server));
      }, 50);
      const attacked = attack(name).finally(() => {
        isOver = true;
      });
      const [done, took] = await Promise.all([attacked, sell(() => isOver)]).finally(() =>
        clearInterval(watch),
      );
      mostMb = Math.max(mostMb, rssMb(server));
      const seconds = (performance.now() - startedAt) / 1_000;
      const lines = countUnauthenticatedLines(await server.output()) - linesBefore;
      const p99 = percentile99(took);
      t.diagnostic(
        `${name}: p99 ${p99.toFixed(1)} ms of ${took.length} calls (${(p99 / quietMs).toFixed(1)} times the quiet one), ` +
          `${mostMb} MB, ${lines} lines in ${seconds.toFixed(1)} s; ${done}`,
      );
      assert.ok(mostMb <= RSS_MB_MAX, `${mostMb} MB`);
      assert.ok(lines <= LOG_LINES_PER_SECOND_MAX * (seconds + 1), `${lines} lines in ${seconds} s`);
      assert.equal(server.process().pid, pid);
      assert.ok(server.process().running(), server.process().describe());
      const shopper = createClient(StockService, createGrpcTransport({ baseUrl: server.url }));
      await until(
        async () => (await shopper.getStock({ productId: "p1" })).stock,
        "the server serves shoppers again",
      );
    });
  }

  it("has sold exactly the acknowledged orders", async () => {
    const stock = createClient(StockService, createGrpcTransport({ baseUrl: server.url }));
    const left = 1_000_000 - sold;
    await until(
      async () => (await stock.getStock({ productId: "p1" })).stock?.available === left,
      `${left} units are available`,
    );
  });

  it("shuts down without waiting for connections of attackers", async () => {
    session.abort();
    await server.process().end("SIGTERM");
    const output = await server.output();
    assert.match(output, /"msg":"Shut down"/);
    assert.doesNotMatch(output, /Connections were closed/);
  });
}

/** Pins processes to one processor, so that the attacked server takes no CPU time from the other one. */
function runOn(processor: number, ...pids: readonly (number | undefined)[]): void {
  for (const pid of pids) {
    execFileSync("taskset", ["--all-tasks", "--cpu-list", "--pid", String(processor), String(pid)]);
  }
}

/** Resident memory of the server, MB. */
function rssMb(server: AppProcess): number {
  const status = readFileSync(`/proc/${server.process().pid}/status`, "utf8");
  return Math.round(Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) / 1_024);
}

/** Number of log lines other than those of writes by authenticated callers. */
function countUnauthenticatedLines(output: string): number {
  return output.split("\n").filter((line) => line !== "" && !line.includes('"caller":"orders-service"'))
    .length;
}

function percentile99(took: readonly number[]): number {
  return took.toSorted((one, other) => one - other)[Math.floor(0.99 * took.length)] ?? 0;
}
