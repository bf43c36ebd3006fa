import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { Inventory } from "../../gen/inventory_pb.ts";
import { WatchLoop } from "../../web/live/watch-loop.ts";
import { StockClient } from "../../web/page/stock-client.ts";
import type { Product } from "../../web/view/product.ts";
import { NativeClient, trust } from "../edge/clients.ts";
import { EDGES, type Edge } from "../edge/edges.ts";
import { type AppProcess, startAppProcess } from "../support/app.ts";
import { freePort } from "../support/free-port.ts";
import { need } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";
import { scrape } from "../support/scrape.ts";
import { until } from "../support/until.ts";
import { timesTold } from "./callers.ts";

// Restarts Orders' server and the two for shoppers behind the edge in turn, under load, like the rollout of a release.

declare global {
  /** Node's navigator has no `onLine`. The page's loop only checks whether it is false. */
  interface Navigator {
    readonly onLine?: boolean;
  }
}

const { RESTART_ROUNDS = "1" } = process.env;
const CALLERS = 3;
const WATCHERS = 20;
/** Orders that must succeed before, between and after the restarts. */
const PROGRESS = 50;
const ORDER_INTERVAL_MS = 10;
const WAIT_MS_MAX = 60_000;
const PRODUCT = "p1";
/** The minimum setting; the longest time without a message on a connected watch. */
const HEARTBEAT_MS = 500;
const SILENCE_MS_MAX = 3_000;
/** The edge checks readiness five times a second, so it has noticed an unready server by then. */
const DRAIN_WAIT_MS = 1_500;

/** Places orders by native gRPC without retries: a failed call is lost. */
class Orders implements Disposable {
  readonly lost: string[] = [];
  readonly timesMs: number[] = [];
  readonly #client: NativeClient;
  readonly #running: Promise<void>[];
  #stopped = false;

  constructor(edge: Edge) {
    this.#client = new NativeClient(edge);
    this.#running = Array.from({ length: CALLERS }, (_, n) => this.#order(`caller-${n}`));
  }

  get count(): number {
    return this.timesMs.length;
  }

  async progress(): Promise<void> {
    const goal = this.count + PROGRESS;
    await until(() => this.count >= goal, `${PROGRESS} more orders get through`, WAIT_MS_MAX);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#running);
  }

  [Symbol.dispose](): void {
    this.#stopped = true;
    this.#client[Symbol.dispose]();
  }

  async #order(name: string): Promise<void> {
    const { reserve, commitReservation } = ReservationService.method;
    for (let n = 0; !this.#stopped; n++) {
      const reservationId = `${name}-${n}`;
      const startMs = performance.now();
      try {
        await this.#client.call(reserve, { reservationId, lines: [{ productId: PRODUCT, quantity: 1 }] });
        await this.#client.call(commitReservation, { reservationId });
        this.timesMs.push(performance.now() - startMs);
        await wait(ORDER_INTERVAL_MS);
      } catch (error) {
        this.lost.push(`${reservationId}: ${error}`);
      }
    }
  }
}

/** Watches like the page, and measures the longest time without a message. */
class Watcher implements Disposable {
  readonly #client: StockClient;
  readonly #loop: WatchLoop<Product>;
  #streams = 0;
  #heardMs = performance.now();
  silenceMsMax = 0;
  goodbyes = 0;
  hasSnapshot = false;

  constructor(url: string) {
    this.#client = new StockClient(url);
    this.#loop = new WatchLoop({
      open: (ids, signal) => this.#open(ids, signal),
      poll: () => Promise.reject(new Error("Streams alone are watched here")),
      heartbeatMs: HEARTBEAT_MS,
      onState: () => undefined,
      onMessage: ({ isSnapshot, reconnectAfterMs }) => {
        this.#heard();
        this.hasSnapshot ||= isSnapshot;
        if (reconnectAfterMs !== undefined) this.goodbyes += 1;
      },
    });
    this.#loop.watch([PRODUCT]);
  }

  /** Whether its last stream has ended too: Node's fetch fails if the edge ends first. */
  get hasEnded(): boolean {
    return this.#streams === 0;
  }

  /** Also counts the time since the last message. */
  end(): void {
    this.#heard();
    this.#loop.end();
  }

  [Symbol.dispose](): void {
    this.#loop.end();
  }

  async *#open(...args: Parameters<StockClient["watch"]>): ReturnType<StockClient["watch"]> {
    this.#streams += 1;
    try {
      yield* this.#client.watch(...args);
    } finally {
      this.#streams -= 1;
    }
  }

  #heard(): void {
    const now = performance.now();
    this.silenceMsMax = Math.max(this.silenceMsMax, now - this.#heardMs);
    this.#heardMs = now;
  }
}

/** Longest time that this process, which runs the watchers, was not scheduled. It is not the silence of a server. */
function watchOwnStalls(): { readonly mostMs: () => number } & Disposable {
  const intervalMs = 20;
  let mostMs = 0;
  let lastMs = performance.now();
  const timer = setInterval(() => {
    mostMs = Math.max(mostMs, performance.now() - lastMs - intervalMs);
    lastMs = performance.now();
  }, intervalMs);
  return { mostMs: () => mostMs, [Symbol.dispose]: () => clearInterval(timer) };
}

interface Server extends AppProcess {
  readonly adminUrl: string;
}

async function startServer(environment: NodeJS.ProcessEnv): Promise<Server> {
  const adminPort = await freePort();
  const server = await startAppProcess({ ...environment, ADMIN_PORT: String(adminPort) });
  return Object.assign(server, { adminUrl: `http://127.0.0.1:${adminPort}` });
}

/** Restarts like an orchestrator: SIGTERM, wait for the exit, start, wait until ready. */
async function restart(server: AppProcess): Promise<void> {
  await server.process().end("SIGTERM", WAIT_MS_MAX);
  assert.match(server.process().describe(), /ended with exit code 0/);
  await server.restart();
  await until(async () => (await fetch(`${server.url}/readyz`)).ok, "the server is ready again", WAIT_MS_MAX);
}

/** Waits until the restarted server has handled a call: one of Orders, or a read, which the edge sends to the least busy. */
async function untilUsed({ adminUrl }: Server, client: NativeClient): Promise<void> {
  const isUsed = async (): Promise<boolean> => {
    await client.call(Inventory.method.get, { id: PRODUCT });
    return ((await scrape(adminUrl)).value("grpc_server_handled_total") ?? 0) > 0;
  };
  await until(isUsed, "the edge sends calls to the restarted server", WAIT_MS_MAX);
}

const missing = need("redis-server").missing || need("openssl").missing || EDGES.caddy.program.missing;

describe("a rolling restart behind the edge", { skip: missing, timeout: 10 * 60_000 }, () => {
  it("loses no call of Orders, and no watcher for more than 3 s", async (t) => {
    await using redis = await startRedis();
    const environment = {
      REDIS_URL: redis.url,
      WATCH_HEARTBEAT_MS: String(HEARTBEAT_MS),
      DRAIN_WAIT_MS: String(DRAIN_WAIT_MS),
      TRUSTED_PROXIES: "127.0.0.1",
    };
    await using ofOrders = await startServer(environment);
    await using first = await startServer(environment);
    await using second = await startServer(environment);
    await using edge = await EDGES.caddy.start({
      upstreams: [first.port, second.port],
      writeUpstreams: [ofOrders.port],
      writers: "127.0.0.1/32",
    });
    trust(edge);
    using client = new NativeClient(edge);
    await client.call(SupplyService.method.putProduct, {
      productId: PRODUCT,
      product: { name: "Lamp", price: 40 },
      declared: 1_000_000,
    });
    using stalls = watchOwnStalls();
    const watchers = Array.from({ length: WATCHERS }, () => new Watcher(edge.url));
    using orders = new Orders(edge);
    try {
      await until(() => watchers.every(({ hasSnapshot }) => hasSnapshot), "every watcher has its snapshot");
      await orders.progress();
      for (let round = 0; round < Number(RESTART_ROUNDS); round++) {
        for (const server of [ofOrders, first, second]) {
          await restart(server);
          await untilUsed(server, client);
          await orders.progress();
        }
      }
      await orders.stop();
    } finally {
      for (const watcher of watchers) watcher.end();
      await until(() => watchers.every(({ hasEnded }) => hasEnded), "every watcher's stream has ended");
    }
    const silences = watchers.map(({ silenceMsMax }) => silenceMsMax);
    const goodbyes = watchers.reduce((sum, watcher) => sum + watcher.goodbyes, 0);
    t.diagnostic(`orders: ${timesTold(orders.timesMs)}, ${orders.lost.length} lost`);
    t.diagnostic(`silence of watchers: ${timesTold(silences)}; ${goodbyes} goodbyes`);
    t.diagnostic(`this process itself stood still for up to ${Math.round(stalls.mostMs())} ms`);
    assert.deepEqual(orders.lost, [], edge.log());
    assert.ok(goodbyes >= WATCHERS * Number(RESTART_ROUNDS), `${goodbyes} goodbyes: each was asked to move`);
    const mostMs = Math.max(...silences);
    // On a busy machine a watcher reconnects no faster than orders get through the same edge and servers.
    const slowMs = stalls.mostMs() + Math.max(...orders.timesMs);
    assert.ok(mostMs <= SILENCE_MS_MAX + slowMs, `a watcher heard nothing for ${Math.round(mostMs)} ms`);
    // Each acknowledged order was applied exactly once.
    const { ledger } = await client.call(SupplyService.method.getLedger, { productId: PRODUCT });
    assert.deepEqual([ledger?.sold, ledger?.reserved], [orders.count, 0]);
  });
});
