import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { type Client, createClient } from "@connectrpc/connect";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { type GrpcJsTransport, grpcJsTransport } from "../support/grpc-js-transport.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { scrape } from "../support/scrape.ts";
import { type ServerProcess, startServerProcess } from "../support/server-process.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { exampleDir, exampleEnvironment, runOk } from "./example.ts";

interface RemainingStock {
  readonly units: number;
  readonly stale: boolean;
  readonly version: string;
}

interface Result {
  readonly data: { readonly products: { id: string; remainingStock: RemainingStock | null }[] };
  readonly errors?: readonly { readonly extensions: { readonly code: string } }[];
}

const SEARCH = `query ($search: String!) {
  products(search: $search) { id remainingStock { units stale version } }
}`;
const SUBSCRIBE = `subscription ($ids: [ID!]!) {
  remainingStock(productIds: $ids) { productId remainingStock { units stale version } }
}`;

describe("examples/graphql-ts", { skip: need("redis-server").missing }, () => {
  let redis: RedisServer;
  let toRedis: TcpProxy;
  let app: TestApp;
  let toApp: TcpProxy;
  let transport: GrpcJsTransport;
  let supply: Client<typeof SupplyService>;
  let dir: string;
  let example: ServerProcess;
  let url: string;

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "inventory-graphql-"));
    redis = await startRedis({ appendonly: "no" });
    toRedis = await startTcpProxy({ target: { port: redis.port } });
    app = await startTestApp({ REDIS_URL: toRedis.url("redis"), ADMIN_PORT: "0" });
    toApp = await startTcpProxy({ target: { port: app.port } });
    transport = grpcJsTransport(app.address);
    supply = createClient(SupplyService, transport);
    await supply.putProduct({ productId: "demo-02", declared: 5 });
    await supply.putProduct({ productId: "demo-11", declared: 7 });
    await runOk("graphql-ts", ["buf", "generate"]);
    example = await startServerProcess({
      command: process.execPath,
      args: ["main.ts"],
      logFile: join(dir, "example.log"),
      cwd: exampleDir("graphql-ts"),
      env: exampleEnvironment({ INVENTORY_URL: toApp.url("http"), PORT: "0" }),
    });
    url = await until(() => /^http:.*$/m.exec(example.log())?.[0], "the example listens");
  });
  after(async () => {
    await example?.end();
    transport?.[Symbol.dispose]();
    await toApp?.close();
    await app?.stop();
    await toRedis?.close();
    await redis?.[Symbol.asyncDispose]();
    await rm(dir, { recursive: true, force: true });
  });

  function post(query: string, variables: object, accept: string, signal?: AbortSignal): Promise<Response> {
    return fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json", accept },
      body: JSON.stringify({ query, variables }),
      ...(signal && { signal }),
    });
  }

  async function search(words: string): Promise<Result> {
    return (await (await post(SEARCH, { search: words }, "application/json")).json()) as Result;
  }

  function unitsIn({ data }: Result): Record<string, number | undefined> {
    return Object.fromEntries(data.products.map(({ id, remainingStock }) => [id, remainingStock?.units]));
  }

  it("reads the stock of all products found by one BatchGetStock", async () => {
    const calls = async () =>
      (await scrape(app.adminUrl)).value("grpc_server_started_total", { grpc_method: "BatchGetStock" }) ?? 0;
    const before = await calls();
    const result = await search("linen");
    assert.deepEqual(unitsIn(result), { "demo-02": 5, "demo-11": 7, discontinued: undefined });
    assert.equal(result.errors, undefined);
    assert.equal((await calls()) - before, 1);
  });

  it("marks stock as stale while Redis is unavailable, and reports when the service is", async () => {
    await toRedis.cut();
    const staleOf = async () =>
      (await search("shirt")).data.products.map((each) => each.remainingStock?.stale);
    await until(async () => (await staleOf())[0] === true, "the stock is stale");
    // A server without processor time refuses reads for a moment.
    const outage = await until(async () => {
      const result = await search("linen");
      assert.deepEqual(unitsIn(result), { "demo-02": 5, "demo-11": 7, discontinued: undefined });
      return result;
    }, "the known products are read");
    const isStale = outage.data.products.map(({ remainingStock }) => remainingStock?.stale);
    assert.deepEqual(isStale, [true, true, undefined]);
    assert.equal(outage.errors?.length, 1, "whether an unknown product exists is not known");
    await toRedis.pass();
    await until(async () => (await staleOf())[0] === false, "the stock is current");

    await toApp.cut();
    const { data, errors } = await search("shirt");
    await toApp.pass();
    assert.deepEqual(data.products, [{ id: "demo-02", remainingStock: null }]);
    assert.deepEqual(
      errors?.map(({ extensions }) => extensions.code),
      ["Unavailable"],
    );
  });

  it("streams every change, its stale marks and removals, also over a broken connection", async (t) => {
    await until(
      () => supply.putProduct({ productId: "watched", declared: 3 }),
      "changes are accepted after the outage",
    );
    const view = new Map<string, RemainingStock | null>();
    const states: (RemainingStock | null)[] = [];
    const unsubscribe = new AbortController();
    t.after(() => unsubscribe.abort());
    const response = await post(
      SUBSCRIBE,
      { ids: ["watched", "no-such"] },
      "text/event-stream",
      unsubscribe.signal,
    );
    const reading = (async () => {
      for await (const data of eventsOf(response)) {
        for (const { productId, remainingStock } of data.remainingStock) {
          view.set(productId, remainingStock);
          if (productId === "watched") states.push(remainingStock);
        }
      }
    })();
    const watched = (units: number, stale = false) => {
      const state = view.get("watched");
      return state?.units === units && state.stale === stale;
    };
    await until(() => watched(3), "the snapshot arrives");
    await until(() => view.get("no-such") === null, "an unknown product is null");

    const reservations = createClient(ReservationService, transport);
    await reservations.reserve({
      reservationId: "watched-1",
      lines: [{ productId: "watched", quantity: 2 }],
    });
    await until(() => watched(1), "the change arrives");

    await toRedis.cut();
    await until(() => watched(1, true), "it is marked as stale");
    await toRedis.pass();
    await until(() => watched(1), "it is current");

    await toApp.cut();
    await until(() => watched(1, true), "it is marked as stale while the service is unreachable");
    await until(() => reservations.releaseReservation({ reservationId: "watched-1" }), "the units return");
    await toApp.pass();
    await until(() => watched(3), "the change of the outage arrives");

    await supply.deleteProduct({ productId: "watched" });
    await until(() => view.get("watched") === null, "the removal arrives");
    const versions = states.flatMap((state) => (state === null ? [] : [Number(state.version)]));
    assert.deepEqual(
      versions,
      versions.toSorted((a, b) => a - b),
      "no state is older than one before",
    );

    unsubscribe.abort();
    await reading;
    await until(
      async () => (await scrape(app.adminUrl)).value("inventory_watches_open") === 0,
      "the watch ends with its subscription",
    );
  });
});

interface WatchData {
  readonly remainingStock: readonly { productId: string; remainingStock: RemainingStock | null }[];
}

/** The results in a stream of server-sent events. Ends with the stream, and when it is aborted. */
async function* eventsOf(response: Response): AsyncGenerator<WatchData> {
  assert.equal(response.headers.get("content-type"), "text/event-stream");
  let text = "";
  try {
    for await (const chunk of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
      text += chunk;
      const events = text.split("\n\n");
      text = events.pop() ?? "";
      for (const event of events) {
        const [, data] = /^data: (.+)$/m.exec(event) ?? [];
        if (data !== undefined) yield JSON.parse(data).data;
      }
    }
  } catch (error) {
    if (!(error instanceof Error && error.name === "AbortError")) throw error;
  }
}
