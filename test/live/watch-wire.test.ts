import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { type ClientHttp2Session, connect } from "node:http2";
import { describe, it } from "node:test";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { type Clients, clientsOf, Envelopes, each, envelopedRequest, PROTOCOLS, Shown } from "./wire.ts";

const skip = need("redis-server").missing;
const BURST = 2_000;
/** All watches that one connection may have. */
const MANY = 100;

const put = ({ supply }: Clients, productId: string, declared: number, name = productId) =>
  supply.putProduct({ productId, declared, product: { name, description: "", price: 1, collectionId: "" } });

const adjust = ({ supply }: Clients, productId: string, delta: number) =>
  supply.adjustStock({ productId, delta, adjustmentId: randomUUID() });

async function untilLoaded(app: TestApp): Promise<void> {
  await using clients = clientsOf(app);
  await until(() => clients.stock.listStock({}).then(() => true), "the catalog is loaded");
}

const hasCode = (code: Code) => (error: unknown) => error instanceof ConnectError && error.code === code;

for (const onRedis of [false, true]) {
  describe(`WatchStock on the ${onRedis ? "Redis" : "memory"} store`, { skip: onRedis && skip }, () => {
    for (const { name, watch } of PROTOCOLS) {
      it(`${name}: snapshot, changes, details, removal, and the end of a burst`, async (t) => {
        await using redis = onRedis ? await startRedis() : undefined;
        await using app = await startTestApp(redis ? { REDIS_URL: redis.url } : {});
        await using clients = clientsOf(app);
        const ids = Array.from({ length: 20 }, (_, n) => `p${n}`);
        await Promise.all(ids.map((id) => put(clients, id, 1_000_000)));
        const isListed = async (): Promise<boolean> =>
          (await clients.stock.listStock({})).totalSize === ids.length;
        await until(isListed, "the server has all products");

        await using all = new Shown(watch, app);
        await using some = new Shown(watch, app, { productIds: ["p1", "unknown"] });
        await until(() => all.hasSnapshot && some.hasSnapshot, "the snapshots have arrived");
        assert.deepEqual([...all.counts.keys()].sort(), [...ids].sort());
        assert.deepEqual(all.counts.get("p3"), {
          productId: "p3",
          available: 1_000_000,
          version: 1,
          name: "p3",
        });
        assert.deepEqual(some.last?.removed, ["unknown"]);
        assert.deepEqual([...some.counts.keys()], ["p1"]);

        await clients.reservations.reserve({ reservationId: "r", lines: [{ productId: "p1", quantity: 7 }] });
        await until(() => some.counts.get("p1")?.available === 999_993, "the reservation is seen");
        assert.equal(some.last?.stocks[0]?.name, undefined, "a change of stock has no details");
        await put(clients, "p1", 1_000_000, "renamed");
        await until(() => some.counts.get("p1")?.name === "renamed", "the new name is seen");
        await put(clients, "unknown", 5, "no longer");
        await until(() => some.counts.get("unknown")?.name === "no longer", "the new product is seen");
        await clients.supply.deleteProduct({ productId: "unknown" });
        await until(() => !some.counts.has("unknown"), "the deletion is seen");

        const from = all.messages.length;
        await each(BURST, 64, (n) => adjust(clients, ids[n % ids.length] ?? "", -1));
        const ledgers = await Promise.all(ids.map((productId) => clients.supply.getLedger({ productId })));
        await until(
          () =>
            ledgers.every(({ ledger }) => all.version(ledger?.productId ?? "") === Number(ledger?.version)),
          "the watch has come to the newest versions",
        );
        for (const { ledger } of ledgers) {
          assert.equal(all.counts.get(ledger?.productId ?? "")?.available, ledger?.available);
        }
        await until(() => some.version("p1") === all.version("p1"), "the watch of one product has it too");
        assert.deepEqual([...some.counts.keys()], ["p1"]);
        t.diagnostic(`${BURST} changes came in ${all.messages.length - from} messages`);
      });

      it(`${name}: a request to reconnect when the server stops`, async () => {
        await using redis = onRedis ? await startRedis() : undefined;
        await using app = await startTestApp(redis ? { REDIS_URL: redis.url } : {}, {
          watchLimits: { reconnectSpreadMs: 500 },
        });
        await untilLoaded(app);
        await using shown = new Shown(watch, app);
        await until(() => shown.hasSnapshot, "the snapshot has arrived");
        await app.stop();
        await shown.ended;
        assert.equal(shown.error, undefined, "the stream ended without an error");
        const { reconnectMs } = shown.last ?? {};
        assert.ok(reconnectMs !== undefined && reconnectMs > 0 && reconnectMs <= 500, `${reconnectMs} ms`);
      });
    }
  });
}

describe("WatchStock: limits", () => {
  for (const { name, watch } of PROTOCOLS) {
    it(`${name}: RESOURCE_EXHAUSTED with a delay beyond the limit; a client that disconnects makes room`, async () => {
      await using app = await startTestApp({}, { watchLimits: { watchesMax: 2 } });
      await using clients = clientsOf(app);
      await using first = new Shown(watch, app);
      {
        await using second = new Shown(watch, app);
        await until(() => first.last && second.last, "both watches are open");
        const refused = clients.stock.watchStock({})[Symbol.asyncIterator]().next();
        await assert.rejects(refused, (error: unknown) => {
          assert.ok(hasCode(Code.ResourceExhausted)(error), String(error));
          const [info] = (error as ConnectError).findDetails(RetryInfoSchema);
          assert.ok(info?.retryDelay && durationMs(info.retryDelay) > 0);
          return true;
        });
        await using third = new Shown(watch, app);
        await third.ended;
        assert.match(String(third.error), /resource_?exhausted|2 watches are open/i);
        assert.deepEqual(third.messages, []);
      }
      await until(async () => {
        await using again = new Shown(watch, app);
        return (await until(() => again.last ?? again.error, "the watch is open or refused")) === again.last;
      }, "the slot of the closed watch is free");
    });
  }

  it("counts by connection and by address", async () => {
    await using app = await startTestApp(
      {},
      { watchLimits: { watchesPerConnectionMax: 1, watchesPerAddressMax: 2 } },
    );
    await using one = clientsOf(app);
    await using two = clientsOf(app);
    await using three = clientsOf(app);
    const abort = new AbortController();
    const open = (clients: Clients, signal = abort.signal) =>
      clients.stock.watchStock({}, { signal })[Symbol.asyncIterator]().next();
    await open(one);
    await assert.rejects(open(one), /on one connection/);
    await open(two);
    await assert.rejects(open(three), /from one address/);
    abort.abort();
    const end = new AbortController();
    await until(() => open(three, end.signal).then(() => true), "their slots are free");
    end.abort();
  });

  it("names the field of bad input", async () => {
    await using app = await startTestApp();
    await using clients = clientsOf(app);
    const watching = (request: object) => clients.stock.watchStock(request)[Symbol.asyncIterator]().next();
    await assert.rejects(
      watching({ productIds: Array.from({ length: 1_001 }, (_, n) => `p${n}`) }),
      hasCode(Code.InvalidArgument),
    );
    await assert.rejects(watching({ productIds: [""] }), hasCode(Code.InvalidArgument));
    await assert.rejects(
      watching({ minInterval: { seconds: 11n, nanos: 0 } }),
      hasCode(Code.InvalidArgument),
    );
    await assert.rejects(
      watching({ minInterval: { seconds: -1n, nanos: 0 } }),
      hasCode(Code.InvalidArgument),
    );
  });
});

describe("WatchStock: the order of a fan-out", () => {
  /** Opens a watch of product `p`. `onChange` is called for its version 2. */
  const openWatch = async (session: ClientHttp2Session, onChange: () => void): Promise<void> => {
    const stream = session.request({
      ":method": "POST",
      ":path": "/inventory.v1.StockService/WatchStock",
      "content-type": "application/grpc",
      te: "trailers",
    });
    stream.end(envelopedRequest({ productIds: ["p"] }));
    const envelopes = new Envelopes();
    stream.on("data", (bytes: Buffer) => {
      envelopes.push(bytes);
      if (envelopes.version("p") === 2) {
        onChange();
      }
    });
    await until(() => envelopes.messages.length > 0, "the snapshot has arrived");
  };

  it("the only watch of a connection is before the many of another that were opened earlier", async () => {
    // Every turn of the event loop serves 16 watches, so the order of arrival is the order in which the server writes.
    await using app = await startTestApp({}, { watchLimits: { turnMsMax: 0 } });
    await using clients = clientsOf(app);
    await put(clients, "p", 10);
    await using connections = new AsyncDisposableStack();
    const [many, one] = [connect(app.url), connect(app.url)];
    connections.defer(() => {
      many.destroy();
      one.destroy();
    });
    const arrivals: string[] = [];
    await each(MANY, 10, () => openWatch(many, () => arrivals.push("many")));
    await openWatch(one, () => arrivals.push("one"));
    await adjust(clients, "p", 1);
    await until(() => arrivals.length === MANY + 1, "the change has arrived at every watch");
    const before = arrivals.indexOf("one");
    assert.ok(before < 16, `${before} watches of the other connection were first`);
  });
});

describe("while Redis is unavailable", { skip }, () => {
  const staleHeader = async (
    read: (options: { onHeader: (headers: Headers) => void }) => Promise<unknown>,
  ) => {
    let header: string | null = null;
    await read({
      onHeader: (headers) => {
        header = headers.get("stock-stale");
      },
    });
    return header as string | null;
  };

  for (const how of ["kill -9", "freeze"] as const) {
    it(`${how}: reads continue, marked stale; reservations are refused; then the service recovers`, async () => {
      await using redis = await startRedis();
      await using proxy = await startTcpProxy({ target: redis });
      await using app = await startTestApp({ REDIS_URL: proxy.url("redis") });
      await using other = await startTestApp({ REDIS_URL: redis.url });
      await using clients = clientsOf(app);
      await using others = clientsOf(other);
      await put(clients, "p", 10);
      await put(clients, "q", 20);
      const isListed = async (): Promise<boolean> => (await clients.stock.listStock({})).totalSize === 2;
      await until(isListed, "the server has both products");
      const watchBy = PROTOCOLS[1]?.watch;
      assert.ok(watchBy);
      await using shown = new Shown(watchBy, app);
      await until(() => shown.last?.stale === false, "the snapshot has arrived, and is fresh");
      const reads = {
        GetStock: (options: object) => clients.stock.getStock({ productId: "p" }, options),
        BatchGetStock: (options: object) => clients.stock.batchGetStock({ productIds: ["q", "p"] }, options),
        ListStock: (options: object) => clients.stock.listStock({}, options),
        ListCollections: (options: object) => clients.stock.listCollections({}, options),
      };
      for (const [name, read] of Object.entries(reads)) {
        assert.equal(await staleHeader(read), null, name);
      }

      await (how === "freeze" ? proxy.freeze() : redis.kill9());
      await until(() => shown.last?.stale, "the watch is marked stale");
      for (const [name, read] of Object.entries(reads)) {
        assert.equal(await staleHeader(read), "true", name);
      }
      assert.equal((await clients.stock.getStock({ productId: "p" })).stock?.available, 10);
      const reserving = clients.reservations.reserve({
        reservationId: "r",
        lines: [{ productId: "p", quantity: 1 }],
      });
      await assert.rejects(reserving, hasCode(Code.Unavailable));
      await assert.rejects(
        clients.reservations.getReservation({ reservationId: "r" }),
        hasCode(Code.Unavailable),
      );
      await assert.rejects(clients.supply.getLedger({ productId: "p" }), hasCode(Code.Unavailable));
      await using late = new Shown(watchBy, app);
      await until(() => late.hasSnapshot, "a new watch receives its snapshot");
      assert.equal(late.last?.stale, true);
      assert.equal(late.counts.get("q")?.available, 20);

      if (how === "kill -9") {
        await proxy.cut();
        await redis.restart();
      }
      await until(() => adjust(others, "p", 5).then(() => true), "the other server writes");
      await adjust(others, "q", -5);
      await proxy.pass();
      await until(
        () => shown.last?.stale === false && late.last?.stale === false,
        "the watches are fresh again",
      );
      // The outcome of the refused reservation is unknown: its units may be held.
      await until(() => shown.counts.get("q")?.available === 15, "the other server's change has arrived");
      await until(async () => {
        const { ledger } = await clients.supply.getLedger({ productId: "p" });
        return ledger?.available === shown.counts.get("p")?.available && (ledger?.adjusted ?? 0) >= 5;
      }, "the watch shows what the ledger has");
      for (const [name, read] of Object.entries(reads)) {
        assert.equal(await staleHeader(read), null, name);
      }
      // The connections for reads and writes reconnect independently.
      const again = { reservationId: "r2", lines: [{ productId: "p", quantity: 1 }] };
      await until(() => clients.reservations.reserve(again), "reservations are accepted again");
    });
  }
});
