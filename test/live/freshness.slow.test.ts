import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, it } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { startTestApp, type TestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { type Clients, clientsOf, PROTOCOLS, type Received, Shown } from "./wire.ts";

const skip = need("redis-server").missing;
/** Reads that may be further behind are marked. */
const STALE_MS = 1_000;

/** The connection of the change feed, by its name. */
const isFeed = (chunk: Buffer): boolean => chunk.includes("inventory-feed");
/** A connection from its first read of the change streams. The handshake and the checks before it pass. */
const isXread = (chunk: Buffer): boolean => /xread/i.test(chunk.toString("latin1"));

interface Read {
  readonly atMs: number;
  readonly version: number;
  readonly stale: boolean;
}

const put = ({ supply }: Clients, productId: string, declared: number, name = productId) =>
  supply.putProduct({ productId, declared, product: { name, description: "", price: 1, collectionId: "" } });

const adjust = ({ supply }: Clients, productId: string) =>
  supply.adjustStock({ productId, delta: 1, adjustmentId: randomUUID() });

/** Calls a method by Connect GET. Returns the body and whether it was marked stale. */
async function get<Body>(
  app: TestApp,
  method: string,
  request: object,
): Promise<{ body: Body; stale: boolean }> {
  const message = encodeURIComponent(JSON.stringify(request));
  const response = await fetch(
    `${app.url}/inventory.v1.StockService/${method}?connect=v1&encoding=json&message=${message}`,
  );
  assert.equal(response.status, 200, method);
  return { body: (await response.json()) as Body, stale: response.headers.get("stock-stale") === "true" };
}

interface StockBody {
  readonly stock: { readonly productId: string; readonly version: string };
}
interface ListBody {
  readonly stocks?: readonly StockBody["stock"][];
}

async function readVersion(app: TestApp, productId: string): Promise<Read> {
  const atMs = performance.now();
  const { body, stale } = await get<StockBody>(app, "GetStock", { productId });
  return { atMs, version: Number(body.stock.version), stale };
}

/** Repeats an action every 10 ms until it is disposed. */
function repeat(action: () => Promise<void>): AsyncDisposable {
  const end = new AbortController();
  const ended = (async () => {
    while (!end.signal.aborted) {
      await action();
      await pause(10);
    }
  })();
  ended.catch(() => undefined);
  return {
    [Symbol.asyncDispose]: async () => {
      end.abort();
      await ended;
    },
  };
}

/** The page's HTML, and the state in it. */
async function pageOf(app: TestApp): Promise<{ html: string; isStale: boolean; serverTimeMs: number }> {
  const response = await fetch(app.url);
  assert.equal(response.status, 200);
  const html = await response.text();
  const start = /data-start="([^"]*)"/
    .exec(html)?.[1]
    ?.replace(/&#(\d+);/g, (_, code) => String.fromCharCode(code));
  return { html, ...(JSON.parse(start ?? "{}") as { isStale: boolean; serverTimeMs: number }) };
}

async function snapshotOf(watch: (typeof PROTOCOLS)[number]["watch"], app: TestApp, productIds: string[]) {
  await using shown = new Shown(watch, app, { productIds });
  await until(() => shown.hasSnapshot || shown.error !== undefined, "the snapshot has arrived");
  assert.equal(shown.error, undefined);
  const versions = shown.messages.flatMap(({ stocks }) => stocks);
  const removed = shown.messages.flatMap((message: Received) => message.removed);
  return { versions, removed, stale: shown.messages.some(({ stale }) => stale) };
}

describe("freshness", { skip }, () => {
  for (const [what, affects] of [
    ["the connection of the change feed is frozen", isFeed],
    ["the change streams are silent on every new connection", isXread],
  ] as const) {
    it(`marks every read that may be more than a second behind, while ${what}`, async (t) => {
      await using redis = await startRedis();
      await using proxy = await startTcpProxy({ target: redis, affects });
      await using app = await startTestApp({ REDIS_URL: proxy.url("redis") });
      await using other = await startTestApp({ REDIS_URL: redis.url });
      await using clients = clientsOf(app);
      await using others = clientsOf(other);
      await put(clients, "p", 10);
      await until(async () => !(await readVersion(app, "p")).stale, "reads are fresh");
      await using shown = new Shown(PROTOCOLS[0]?.watch ?? assert.fail(), app, { productIds: ["p"] });
      await until(() => shown.last?.stale === false, "the watch is fresh");

      const acknowledged: { readonly atMs: number; readonly version: number }[] = [];
      await using _writer = repeat(async () => {
        const { ledger } = await adjust(others, "p");
        acknowledged.push({ atMs: performance.now(), version: Number(ledger?.version) });
      });
      const reads: Read[] = [];
      const readOn = async (): Promise<Read> => {
        const read = await readVersion(app, "p");
        reads.push(read);
        return read;
      };
      await until(async () => (await readOn()).version > 5, "changes arrive");

      await proxy.freeze();
      const [frozenAtMs, connections] = [performance.now(), proxy.accepted()];
      await until(async () => (await readOn()).stale, "reads are marked stale");
      await until(() => shown.last?.stale, "the watch is marked stale");
      t.diagnostic(
        `reads were marked ${Math.round(performance.now() - frozenAtMs)} ms after the silence began`,
      );
      const firstMarked = reads.length;
      const messages = shown.messages.length;
      await until(
        async () => {
          await readOn();
          return proxy.accepted() >= connections + 3;
        },
        "the feed has reconnected several times",
        30_000,
      );
      assert.ok(
        reads.slice(firstMarked).every(({ stale }) => stale),
        "a reconnect cleared the mark before anything was received",
      );
      assert.ok(shown.messages.slice(messages).every(({ stale }) => stale));
      assert.equal((await pageOf(app)).isStale, true);
      for (const method of ["ListStock", "ListCollections"]) {
        assert.equal((await get(app, method, {})).stale, true, method);
      }

      await proxy.pass();
      const passedAtMs = performance.now();
      await until(async () => !(await readOn()).stale, "reads are fresh again");
      t.diagnostic(
        `reads were fresh ${Math.round(performance.now() - passedAtMs)} ms after the silence ended`,
      );
      await until(() => shown.last?.stale === false, "the watch is fresh again");
      for (let n = 0; n < 50; n++) {
        await readOn();
      }
      const behind = reads.filter(
        ({ atMs, version, stale }) =>
          !stale && acknowledged.some((change) => change.atMs < atMs - STALE_MS && change.version > version),
      );
      t.diagnostic(`${reads.length} reads, ${acknowledged.length} changes`);
      assert.deepEqual(behind, [], "unmarked reads that were more than a second behind");
    });
  }

  it("shows no watch, list or page that is older than what its server acknowledged", async (t) => {
    await using redis = await startRedis();
    await using proxy = await startTcpProxy({ target: redis, affects: isFeed });
    await using app = await startTestApp({ REDIS_URL: proxy.url("redis") });
    await using clients = clientsOf(app);
    await put(clients, "old", 1);
    await until(
      async () => (await pageOf(app)).html.includes('data-product-id="old"'),
      "the page has the product",
    );
    await proxy.delay(200);
    const marked: string[] = [];
    const check = (name: string, isCurrent: boolean, stale: boolean): void => {
      if (stale) marked.push(name);
      else assert.ok(isCurrent, `${name} is older than what was acknowledged`);
    };
    for (let round = 1; round <= 2; round++) {
      const id = `new-${round}`;
      for (const { name, watch } of PROTOCOLS) {
        const productId = `${id}-${name.slice(0, 8)}`;
        await put(clients, productId, 5);
        const created = await snapshotOf(watch, app, [productId]);
        check(`${name}: new product`, created.removed.length === 0, created.stale);
        const { ledger } = await adjust(clients, "old");
        const changed = await snapshotOf(watch, app, []);
        const version = changed.versions.find((stock) => stock.productId === "old")?.version ?? 0;
        check(`${name}: changed product`, version >= Number(ledger?.version), changed.stale);
      }
      await put(clients, id, 5);
      const list = await get<ListBody>(app, "ListStock", { query: id });
      check("ListStock", list.body.stocks?.some(({ productId }) => productId === id) ?? false, list.stale);
      await put(clients, `page-${id}`, 5);
      const { html, isStale } = await pageOf(app);
      check("page", html.includes(`data-product-id="page-${id}"`), isStale);
      await clients.supply.deleteProduct({ productId: `page-${id}` });
      const after = await pageOf(app);
      check("page after a deletion", !after.html.includes(`data-product-id="page-${id}"`), after.isStale);
    }
    t.diagnostic(`marked stale: ${marked.length} of 18 (${marked.join(", ")})`);
    assert.ok(marked.length < 18, "every read was marked stale");
  });

  it("stays readable while Redis is frozen, stale with the age of the counts, and recovers", async (t) => {
    await using redis = await startRedis();
    await using proxy = await startTcpProxy({ target: redis });
    await using app = await startTestApp({ REDIS_URL: proxy.url("redis") });
    await using clients = clientsOf(app);
    await put(clients, "p", 10);
    await until(async () => {
      const { html, isStale } = await pageOf(app);
      return !isStale && html.includes("10 left");
    }, "the page is fresh");
    const frozenAfterMs = Date.now();
    redis.pause();
    const frozenBeforeMs = Date.now();
    await until(async () => (await pageOf(app)).isStale, "the page is marked stale");
    const connections = proxy.accepted();
    await until(() => proxy.accepted() >= connections + 4, "several reconnects have failed", 30_000);
    const { html, serverTimeMs } = await pageOf(app);
    assert.ok(html.includes("10 left"));
    assert.match(html, /Last known counts<\/span><span class="status-age"> as of \d\d:\d\d:\d\d UTC</);
    assert.ok(
      serverTimeMs >= frozenAfterMs - STALE_MS && serverTimeMs <= frozenBeforeMs,
      `the counts are as of ${serverTimeMs}; Redis was frozen at ${frozenBeforeMs}`,
    );
    redis.resume();
    const resumedAtMs = performance.now();
    await until(async () => !(await pageOf(app)).isStale, "the page is fresh again");
    t.diagnostic(`fresh ${Math.round(performance.now() - resumedAtMs)} ms after Redis`);
  });
});
