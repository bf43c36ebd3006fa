import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, describe, it } from "node:test";
import type { Browser, Page, Request } from "playwright";
import { type AppProcess, startAppProcess } from "../support/app.ts";
import { chromiumNeed, startBrowser, visit } from "./browser.ts";
import { startBufferingProxy } from "./buffering-proxy.ts";
import { type Shop, SMALL_SHOP, shopAt } from "./shop.ts";

/** A storefront on its own origin. A parameter of its address is the URL of the inventory service. */
async function startStorefront(): Promise<{ origin: string; server: Server }> {
  const server = createServer((request, response) => {
    const service = new URL(request.url ?? "/", "http://shop").searchParams.get("service");
    response.setHeader("content-type", "text/html; charset=utf-8");
    response.end(`<!doctype html><html lang="en"><title>Shop</title>
<script src="${service}/embed.js" async></script>
<stock-count product-id="mug">See the shop</stock-count>
<stock-count product-id="lamp">See the shop</stock-count>
<stock-count product-id="unknown">Ask us</stock-count>`);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server };
}

describe("<stock-count>", { skip: chromiumNeed.missing, concurrency: false }, () => {
  let app: AppProcess;
  let shop: Shop;
  let browser: Browser;
  let allowed: { origin: string; server: Server };
  let refusedOrigin: { origin: string; server: Server };

  before(async () => {
    [allowed, refusedOrigin, browser] = await Promise.all([
      startStorefront(),
      startStorefront(),
      startBrowser(),
    ]);
    app = await startAppProcess({ EMBED_ORIGINS: `https://shop.example, ${allowed.origin}` });
    shop = shopAt(app.url);
    await shop.put(...SMALL_SHOP);
  });
  after(async () => {
    shop?.close();
    allowed?.server.close();
    refusedOrigin?.server.close();
    await browser?.close();
    await app?.stop();
  });

  const shopPage = (storefront: { origin: string }, service = app.url): string =>
    `${storefront.origin}/?service=${service}`;
  const count = (page: Page, productId: string, text: string) =>
    page.locator(`stock-count[product-id="${productId}"] [part=text]`, { hasText: text });

  it("shows live counts on another origin that is allowed, over one watch", async () => {
    await using visitor = await visit(browser);
    const watches: Request[] = [];
    visitor.context.on("request", (request) => {
      if (request.url().endsWith("/WatchStock") && request.method() === "POST") watches.push(request);
    });
    const page = await visitor.open(shopPage(allowed));
    await count(page, "mug", "120 left").waitFor();
    await count(page, "lamp", "8 left").waitFor();
    assert.equal(await page.getByText("Ask us").isVisible(), true);
    await page.evaluate(() =>
      document.addEventListener(
        "stock-change",
        (event) =>
          Object.assign(globalThis, {
            received: { detail: (event as CustomEvent).detail, isComposed: event.composed },
          }),
        { once: true },
      ),
    );
    await shop.reserve("lamp", 6);
    await count(page, "lamp", "Only 2 left").waitFor();
    const received = await page.evaluate(() => (globalThis as { received?: unknown }).received);
    assert.deepEqual(received, {
      detail: { productId: "lamp", available: 2, previous: 8 },
      isComposed: true,
    });
    assert.equal(await page.locator("stock-count:state(low):state(live)").count(), 1);
    await shop.reserve("lamp", 2);
    await count(page, "lamp", "Sold out").waitFor();
    assert.equal(await page.locator("stock-count:state(sold-out)").count(), 1);
    assert.equal(watches.length, 1);
  });

  it("watches elements that are added or changed later, and clears removed products", async () => {
    await using visitor = await visit(browser);
    const page = await visitor.open(shopPage(allowed));
    await count(page, "mug", "left").waitFor();
    await page.evaluate(() => {
      const added = document.createElement("stock-count");
      added.setAttribute("product-id", "bowl");
      document.body.append(added);
    });
    await count(page, "bowl", "45 left").waitFor();
    await page.locator('stock-count[product-id="bowl"]').evaluate((element) => {
      element.setAttribute("product-id", "pen");
    });
    await count(page, "pen", "16 left").waitFor();
    await shop.remove("pen");
    await count(page, "pen", "16 left").waitFor({ state: "detached" });
  });

  it("marks its count as stale when the connection is lost", async () => {
    await using visitor = await visit(browser);
    const page = await visitor.open(shopPage(allowed));
    await page.locator('stock-count[product-id="mug"]:state(live)').waitFor();
    await visitor.context.setOffline(true);
    await page.locator('stock-count[product-id="mug"]:state(stale)').waitFor();
    await visitor.context.setOffline(false);
    await page.locator('stock-count[product-id="mug"]:state(live)').waitFor();
  });

  it("polls where a proxy buffers streams, and is neither live nor stale", async () => {
    await shop.put({ productId: "mug", name: "Enamel Mug", declared: 70 });
    await using proxy = await startBufferingProxy(app.port);
    await using visitor = await visit(browser);
    const polls: string[] = [];
    visitor.context.on("request", (request) => {
      if (request.url().includes("/BatchGetStock?")) polls.push(request.method());
    });
    const page = await visitor.open(shopPage(allowed, proxy.url));
    const mug = page.locator('stock-count[product-id="mug"]');
    await count(page, "mug", "70 left").waitFor();
    assert.equal(await page.getByText("Ask us").isVisible(), true);
    await shop.reserve("mug", 1);
    await count(page, "mug", "69 left").waitFor();
    const states = await mug.evaluate((element) =>
      ["live", "stale"].filter((state) => element.matches(`:state(${state})`)),
    );
    assert.deepEqual(states, []);
    assert.ok(polls.length > 0 && polls.every((method) => method === "GET"));
    await visitor.context.setOffline(true);
    await page.locator('stock-count[product-id="mug"]:state(stale)').waitFor();
  });

  it("shows its fallback on an origin that is not allowed", async () => {
    await using visitor = await visit(browser);
    const refused = visitor.context.waitForEvent("requestfailed", (request) =>
      request.url().endsWith("/WatchStock"),
    );
    const page = await visitor.open(shopPage(refusedOrigin));
    await refused;
    assert.equal(await page.getByText("See the shop").first().isVisible(), true);
    assert.equal(await page.locator("stock-count [part=text]").count(), 0);
  });

  it("allows other origins only to read", async () => {
    const preflight = (path: string, origin: string) =>
      fetch(`${app.url}${path}`, {
        method: "OPTIONS",
        headers: { origin, "access-control-request-method": "POST" },
      });
    const read = await preflight("/inventory.v1.StockService/WatchStock", allowed.origin);
    assert.equal(read.status, 204);
    assert.equal(read.headers.get("access-control-allow-origin"), allowed.origin);
    assert.equal(read.headers.get("access-control-max-age"), "7200");
    assert.equal(read.headers.get("vary"), "origin");
    for (const [path, origin] of [
      ["/inventory.v1.StockService/WatchStock", refusedOrigin.origin],
      ["/inventory.v1.SupplyService/AdjustStock", allowed.origin],
      ["/inventory.v1.ReservationService/Reserve", allowed.origin],
    ] as const) {
      const refused = await preflight(path, origin);
      assert.equal(refused.headers.get("access-control-allow-origin"), null, path);
      assert.notEqual(refused.status, 204);
    }
    const response = await fetch(
      `${app.url}/inventory.v1.StockService/GetStock?connect=v1&encoding=json&message=${encodeURIComponent('{"productId":"mug"}')}`,
      { headers: { origin: allowed.origin } },
    );
    assert.equal(response.headers.get("access-control-allow-origin"), allowed.origin);
    assert.match(response.headers.get("access-control-expose-headers") ?? "", /grpc-status-details-bin/);
  });

  it("shows the demo storefront", async () => {
    await shop.put({ productId: "demo-23", name: "Trail Backpack", declared: 7, price: 139 });
    await using visitor = await visit(browser);
    const page = await visitor.open(`${app.url}/embed-demo.html`);
    await count(page, "demo-23", "7 left").waitFor();
    assert.equal(await page.getByText("Available", { exact: true }).isVisible(), true);
    await shop.reserve("demo-23", 1);
    await count(page, "demo-23", "6 left").waitFor();
    await page.getByText("Trail Backpack, from 7 to 6").waitFor();
    assert.deepEqual(visitor.errors, []);
  });
});
