import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { startTestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { until } from "../support/until.ts";
import { SMALL_SHOP, shopAt } from "../web/shop.ts";
import { trust } from "./clients.ts";
import { EDGES, type Edge } from "./edges.ts";

/** More than the streams (200) and the watches (100) that the service allows on one HTTP/2 connection. */
const MANY_WATCHES = 250;
/** Client connections to the edge: edges allow at most 100 streams on one. */
const CONNECTIONS = 5;
const RECOVERED_MS_MAX = 60_000;
const TRUSTING = { TRUSTED_PROXIES: "127.0.0.1" };

/** Clients of an edge, each with its own connection and address. */
class Clients implements Disposable {
  readonly #edge: Edge;
  readonly #sessions: Http2SessionManager[] = [];
  readonly #stop = new AbortController();

  constructor(edge: Edge) {
    this.#edge = edge;
  }

  transport(from: string) {
    const options = { ca: this.#edge.certificate, localAddress: from, family: 4 };
    const sessionManager = new Http2SessionManager(this.#edge.url, {}, options);
    this.#sessions.push(sessionManager);
    return createGrpcTransport({ baseUrl: this.#edge.url, sessionManager });
  }

  /** Opens a watch and keeps it. Resolves with its first message, or with its error. */
  async watch(
    client: Client<typeof StockService>,
    headers: Record<string, string> = {},
  ): Promise<"open" | Code> {
    const watch = client.watchStock({ productIds: ["mug"] }, { signal: this.#stop.signal, headers });
    try {
      await watch[Symbol.asyncIterator]().next();
      return "open";
    } catch (error) {
      return ConnectError.from(error).code;
    }
  }

  [Symbol.dispose](): void {
    this.#stop.abort();
    for (const session of this.#sessions) {
      session.abort();
    }
  }
}

for (const kind of Object.values(EDGES)) {
  describe(`bounds behind ${kind.name}`, { skip: kind.program.missing || need("openssl").missing }, () => {
    it("limits apply to the client's own address, which it cannot forge, and not to the edge's connections", async () => {
      const watchLimits = { watchesPerAddressMax: 3, watchesPerConnectionMax: 1 };
      await using app = await startTestApp(TRUSTING, { watchLimits });
      await using edge = await kind.start({ upstreams: [app.port] });
      using clients = new Clients(edge);
      const began: ("open" | Code)[] = [];
      for (const [from, chosen] of [
        ["127.0.0.2", "203.0.113.1"],
        ["127.0.0.2", "203.0.113.2"],
        ["127.0.0.2", "203.0.113.3"],
        ["127.0.0.2", "203.0.113.4"],
        ["127.0.0.3", "127.0.0.2"],
      ] as const) {
        const client = createClient(StockService, clients.transport(from));
        began.push(
          await clients.watch(client, {
            "x-forwarded-for": chosen,
            "x-real-ip": chosen,
            forwarded: `for=${chosen}`,
          }),
        );
      }
      assert.deepEqual(began, ["open", "open", "open", Code.ResourceExhausted, "open"]);
    });

    it(`${MANY_WATCHES} watches are possible, more than the service allows on one connection`, async () => {
      await using app = await startTestApp(TRUSTING);
      await using edge = await kind.start({ upstreams: [app.port] });
      using clients = new Clients(edge);
      const each = Array.from({ length: CONNECTIONS }, () =>
        createClient(StockService, clients.transport("127.0.0.1")),
      );
      for (let opened = 0; opened < MANY_WATCHES; opened += CONNECTIONS) {
        await Promise.all(
          each.map((client, n) =>
            // An edge whose check of a busy server was late answers 503 until later checks succeed.
            until(
              async () => {
                assert.equal(await clients.watch(client), "open");
                return true;
              },
              `watch ${opened + n} is open`,
              RECOVERED_MS_MAX,
            ),
          ),
        );
      }
    });

    it("a change reaches a watcher at once, without buffering in the edge", async () => {
      await using app = await startTestApp({ ...TRUSTING, WATCH_HEARTBEAT_MS: "30000" });
      const shop = shopAt(app.url);
      await shop.put(...SMALL_SHOP);
      await using edge = await kind.start({ upstreams: [app.port] });
      trust(edge);
      for (const [index, transport] of [
        createGrpcWebTransport({ baseUrl: edge.url }),
        createConnectTransport({ baseUrl: edge.url }),
      ].entries()) {
        const stop = new AbortController();
        const watch = createClient(StockService, transport)
          .watchStock({ productIds: ["pen"] }, { signal: stop.signal })
          [Symbol.asyncIterator]();
        const next = async (): Promise<number | undefined> =>
          (await watch.next()).value?.stocks[0]?.available;
        assert.equal(await next(), 16 - index);
        await shop.reserve("pen", 1);
        const change = next();
        assert.equal(await until(() => change, "the change is there"), 15 - index);
        stop.abort();
      }
      shop.close();
    });

    if (kind.name !== "Caddy") {
      it("a watch without messages is closed after the idle timeout", async () => {
        await using app = await startTestApp({ ...TRUSTING, WATCH_HEARTBEAT_MS: "30000" });
        await using edge = await kind.start({ upstreams: [app.port], idleMs: 300 });
        using clients = new Clients(edge);
        const watch = createClient(StockService, clients.transport("127.0.0.1")).watchStock({
          productIds: ["mug"],
        });
        await assert.rejects(async () => {
          for await (const { stocks, removedProductIds, snapshot } of watch) {
            assert.ok(snapshot || stocks.length + removedProductIds.length > 0, "no heartbeat is due");
          }
        }, ConnectError);
      });
    }

    if (kind.name !== "Envoy") {
      it("writes are allowed from the listed networks only", async () => {
        await using app = await startTestApp(TRUSTING);
        const shop = shopAt(app.url);
        await shop.put(...SMALL_SHOP);
        shop.close();
        await using edge = await kind.start({ upstreams: [app.port], writers: "127.0.0.2/32" });
        using clients = new Clients(edge);
        const reserve = async (from: string): Promise<"reserved" | Code> => {
          const orders = createClient(ReservationService, clients.transport(from));
          try {
            await orders.reserve(
              { reservationId: `from-${from}`, lines: [{ productId: "mug", quantity: 1 }] },
              { headers: { "x-forwarded-for": "127.0.0.2" } },
            );
            return "reserved";
          } catch (error) {
            return ConnectError.from(error).code;
          }
        };
        assert.equal(await reserve("127.0.0.2"), "reserved");
        assert.equal(await reserve("127.0.0.1"), Code.Unimplemented);
        assert.equal(await reserve("127.0.0.3"), Code.Unimplemented);
      });
    }
  });
}
