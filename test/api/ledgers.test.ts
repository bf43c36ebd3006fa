import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import {
  DeletedFilter,
  type Ledger,
  LedgerOrder,
  type ListLedgersRequestSchema,
  SupplyService,
} from "../../gen/inventory/v1/supply_pb.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";

type Query = MessageInitShape<typeof ListLedgersRequestSchema>;

/** Whether a chunk to Redis is of the connection that follows the change streams. */
const isFeed = (chunk: Buffer): boolean => /xread/i.test(chunk.toString("latin1"));

const idsOf = (ledgers: readonly Ledger[]): string[] => ledgers.map(({ productId }) => productId);

for (const onRedis of [false, true]) {
  const skip = onRedis && need("redis-server").missing;
  describe(`ListLedgers, with ${onRedis ? "Redis" : "the memory store"}`, { skip }, () => {
    let redis: Awaited<ReturnType<typeof startRedis>> | undefined;
    let proxy: TcpProxy | undefined;
    let app: TestApp;
    let supply: Client<typeof SupplyService>;
    before(async () => {
      redis = onRedis ? await startRedis() : undefined;
      proxy = redis && (await startTcpProxy({ target: redis, affects: isFeed }));
      app = await startTestApp(proxy ? { REDIS_URL: proxy.url("redis") } : {});
      const transport = createGrpcTransport({ baseUrl: app.url });
      supply = createClient(SupplyService, transport);
      const reservations = createClient(ReservationService, transport);
      const collectionOf = (n: number) => (n < 3 ? "mugs" : "");
      await supply.batchPutProducts({
        requests: [0, 1, 2, 3, 4, 5].map((n) => ({
          productId: `p${n}`,
          declared: 10 * (5 - n),
          product: { name: `Product ${n}`, price: 1, collectionId: collectionOf(n) },
        })),
      });
      await reservations.reserve({ reservationId: "r", lines: [{ productId: "p1", quantity: 40 }] });
      await reservations.reserve({ reservationId: "s", lines: [{ productId: "p2", quantity: 4 }] });
      await supply.countStock({ productId: "p1", count: 30, countId: "c" });
      await supply.deleteProduct({ productId: "p4" });
    });
    after(async () => {
      await app?.stop();
      await proxy?.close();
      await redis?.stop();
    });
    const list = async (query: Query) => {
      const { ledgers, totalSize, nextPageToken } = await supply.listLedgers(query);
      return { ids: idsOf(ledgers), totalSize, nextPageToken };
    };

    it("filters by each field and by all of them", async () => {
      const cases: readonly [Query, string[]][] = [
        [{}, ["p0", "p1", "p2", "p3", "p5"]],
        [{ maxAvailable: 20 }, ["p1", "p3", "p5"]],
        [{ maxAvailable: 0 }, ["p1", "p5"]],
        [{ shortfallOnly: true }, ["p1"]],
        [{ reservedOnly: true }, ["p1", "p2"]],
        [{ deleted: DeletedFilter.INCLUDED }, ["p0", "p1", "p2", "p3", "p4", "p5"]],
        [{ deleted: DeletedFilter.ONLY }, ["p4"]],
        [{ collectionId: "mugs" }, ["p0", "p1", "p2"]],
        [{ collectionId: "unknown" }, []],
        [{ changedSince: { seconds: 4_000_000_000n } }, []],
        [{ collectionId: "mugs", reservedOnly: true, maxAvailable: 30 }, ["p1", "p2"]],
        [{ collectionId: "mugs", reservedOnly: true, maxAvailable: 20 }, ["p1"]],
      ];
      for (const [query, ids] of cases) {
        assert.deepEqual(
          await list(query),
          { ids, totalSize: ids.length, nextPageToken: "" },
          JSON.stringify(query, (_, value) => (typeof value === "bigint" ? Number(value) : value)),
        );
      }
    });

    it("has the ledgers of the store", async () => {
      const { ledgers } = await supply.listLedgers({ deleted: DeletedFilter.INCLUDED });
      assert.equal(ledgers.length, 6);
      for (const ledger of ledgers) {
        assert.deepEqual(ledger, (await supply.getLedger({ productId: ledger.productId })).ledger);
      }
    });

    it("sorts in each order and direction, in pages", async () => {
      const all = { deleted: DeletedFilter.INCLUDED, pageSize: 2 };
      const byTime = ["p0", "p3", "p5", "p2", "p1", "p4"];
      const orders: readonly [LedgerOrder, string[]][] = [
        [LedgerOrder.PRODUCT_ID, ["p0", "p1", "p2", "p3", "p4", "p5"]],
        [LedgerOrder.AVAILABLE, ["p1", "p5", "p4", "p3", "p2", "p0"]],
      ];
      for (const [order, ascending] of orders) {
        for (const descending of [false, true]) {
          const found: string[] = [];
          let pageToken = "";
          do {
            const page = await list({ ...all, order, descending, pageToken });
            assert.equal(page.totalSize, 6);
            found.push(...page.ids);
            pageToken = page.nextPageToken;
          } while (pageToken !== "");
          assert.deepEqual(found, descending ? ascending.toReversed() : ascending);
        }
      }
      // The products of the batch may have the same time.
      const { ids } = await list({ ...all, pageSize: 6, order: LedgerOrder.UPDATE_TIME });
      assert.deepEqual(ids.slice(3), byTime.slice(3));
    });

    it("has what changed since a time, and what this client has just changed", async () => {
      const stock = createClient(StockService, createGrpcTransport({ baseUrl: app.url }));
      const { stocks } = await stock.batchGetStock({ productIds: ["p0", "p1", "p2", "p3", "p5"] });
      const latestMs = Math.max(
        ...stocks.map(({ updateTime }) => (updateTime ? timestampMs(updateTime) : 0)),
      );
      await until(() => Date.now() > latestMs, "the clock is later than the latest change");
      const changedSince = timestampFromMs(latestMs + 1);
      await supply.adjustStock({ productId: "p3", delta: 1, adjustmentId: "a1" });
      const { ids } = await list({ changedSince });
      assert.deepEqual(ids, ["p3"]);
      await supply.adjustStock({ productId: "p3", delta: -1, adjustmentId: "a2" });
      assert.deepEqual((await list({ maxAvailable: 20, pageSize: 2 })).ids, ["p1", "p3"]);
    });

    it("refuses a token of a list with other filters or in another order", async () => {
      const { nextPageToken: pageToken } = await list({ pageSize: 1, maxAvailable: 50 });
      assert.equal((await list({ pageSize: 3, maxAvailable: 50, pageToken })).ids.length, 3);
      for (const other of [
        { maxAvailable: 49 },
        { maxAvailable: 50, reservedOnly: true },
        { maxAvailable: 50, descending: true },
        { maxAvailable: 50, order: LedgerOrder.AVAILABLE },
      ]) {
        const error = await supply
          .listLedgers({ ...other, pageToken })
          .then(() => assert.fail(`accepted with ${JSON.stringify(other)}`), ConnectError.from);
        assert.equal(error.code, Code.InvalidArgument);
        assert.match(error.rawMessage, /page_token .* other filters or in another order/);
      }
    });

    it("is readable as a GET of JSON", async () => {
      const client = createClient(
        SupplyService,
        createConnectTransport({
          baseUrl: app.url,
          httpVersion: "1.1",
          useBinaryFormat: false,
          useHttpGet: true,
        }),
      );
      assert.deepEqual(idsOf((await client.listLedgers({ reservedOnly: true })).ledgers), ["p1", "p2"]);
    });

    if (onRedis) {
      it("is the same from a server that has loaded the products at its start", async () => {
        await using second = await startTestApp(redis ? { REDIS_URL: redis.url } : {});
        const other = createClient(SupplyService, createGrpcTransport({ baseUrl: second.url }));
        for (const query of [
          { reservedOnly: true },
          { shortfallOnly: true },
          { deleted: DeletedFilter.ONLY },
        ]) {
          assert.deepEqual(await other.listLedgers(query), await supply.listLedgers(query));
        }
        assert.deepEqual(idsOf((await other.listLedgers({ shortfallOnly: true })).ledgers), ["p1"]);
      });

      it("is marked stale while the change stream is interrupted, and has the ledgers of the store", async () => {
        let isStale: string | null = null;
        const onHeader = (headers: Headers): void => {
          isStale = headers.get("stock-stale");
        };
        await supply.listLedgers({}, { onHeader });
        assert.equal(isStale, null);
        await proxy?.freeze();
        const { ledger } = await supply.adjustStock({ productId: "p3", delta: 2, adjustmentId: "a3" });
        await until(async () => {
          await supply.listLedgers({}, { onHeader });
          return isStale === "true";
        }, "the list is stale");
        const { ledgers } = await supply.listLedgers({ maxAvailable: 100 });
        assert.deepEqual(
          ledgers.find(({ productId }) => productId === "p3"),
          ledger,
        );
        // The mirror has p3 with 20 units. Its ledger does not match any more.
        assert.deepEqual((await list({ maxAvailable: 20 })).ids, ["p1", "p5"]);
        await proxy?.pass();
      });

      it("responds UNAVAILABLE while Redis is away", async () => {
        await proxy?.cut();
        const error = await until(
          async () =>
            supply.listLedgers({}).then(
              () => undefined,
              (reason: unknown) => ConnectError.from(reason),
            ),
          "the list is refused",
        );
        assert.equal(error.code, Code.Unavailable);
        await proxy?.pass();
        await until(
          async () => (await supply.listLedgers({}).catch(() => undefined))?.totalSize === 5,
          "the list is back",
        );
      });
    }
  });
}
