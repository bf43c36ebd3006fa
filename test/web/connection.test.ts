import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Browser, Request } from "playwright";
import { type AppProcess, startAppProcess } from "../support/app.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import {
  chromiumNeed,
  startBrowser,
  textOf,
  untilCount,
  untilStatus,
  type Visitor,
  visit,
} from "./browser.ts";
import { startBufferingProxy } from "./buffering-proxy.ts";
import { type Shop, SMALL_SHOP, shopAt } from "./shop.ts";

/** Short, so that a dead connection is detected within the time of a test. The server passes it to the page. */
const HEARTBEAT_MS = 800;

// Each test has its own product and connection and mostly waits, so the tests run concurrently.
describe("the page on a bad connection", { skip: chromiumNeed.missing, concurrency: 3 }, () => {
  let app: AppProcess;
  let shop: Shop;
  let browser: Browser;

  before(async () => {
    [app, browser] = await Promise.all([
      startAppProcess({ WATCH_HEARTBEAT_MS: String(HEARTBEAT_MS) }),
      startBrowser(),
    ]);
    shop = shopAt(app.url);
    await shop.put(...SMALL_SHOP);
  });
  after(async () => {
    shop?.close();
    await browser?.close();
    await app?.stop();
  });

  it("shows that it reconnects when the connection is cut, dims the counts, and recovers", async () => {
    await using proxy = await startTcpProxy({ target: { port: app.port } });
    await using visitor = await visit(browser);
    const page = await visitor.open(proxy.url("http"));
    await untilStatus(page, "Live");
    assert.equal(await page.locator(".product-list").getAttribute("data-current"), "yes");
    await proxy.cut();
    await untilStatus(page, "Reconnecting");
    assert.match(await textOf(page, ".status-age"), /as of \d\d:\d\d:\d\d/);
    assert.equal(await page.locator(".product-list").getAttribute("data-current"), "no");
    await shop.adjust("mug", -20);
    await proxy.pass();
    await untilStatus(page, "Live");
    await untilCount(page, "mug", "100 left");
    assert.equal(await page.locator(".product-list").getAttribute("data-current"), "yes");
  });

  it("shows Offline while the browser is offline, and reconnects at once when it is online", async () => {
    await using visitor = await visit(browser);
    const page = await visitor.open(app.url);
    await untilStatus(page, "Live");
    await visitor.context.setOffline(true);
    await untilStatus(page, "Offline");
    assert.match(await textOf(page, ".status-age"), /as of/);
    await visitor.context.setOffline(false);
    await untilStatus(page, "Live");
  });

  it("replaces a dead connection", async (t) => {
    await using proxy = await startTcpProxy({ target: { port: app.port } });
    await using visitor = await visit(browser);
    const page = await visitor.open(proxy.url("http"));
    await untilStatus(page, "Live");
    await proxy.freeze();
    const frozenMs = performance.now();
    await untilStatus(page, "Reconnecting");
    const silentMs = Math.round(performance.now() - frozenMs);
    t.diagnostic(`detected after ${silentMs} ms, with a heartbeat every ${HEARTBEAT_MS} ms`);
    proxy.resetConnections();
    await proxy.pass();
    await untilStatus(page, "Live");
  });

  it("takes over from a suspended tab that holds the watch", async () => {
    await using visitor = await visit(browser);
    const watches = watchesOf(visitor);
    const first = await visitor.open(app.url);
    await untilStatus(first, "Live");
    const second = await visitor.open(app.url);
    await untilStatus(second, "Live");
    assert.equal(watches.size, 1);

    const inspector = await visitor.context.newCDPSession(first);
    await inspector.send("Debugger.enable");
    const paused = new Promise((resolve) => inspector.once("Debugger.paused", resolve));
    await inspector.send("Debugger.pause");
    await paused;
    await shop.adjust("lamp", 1);
    await untilCount(second, "lamp", "9 left");
    assert.equal(watches.size, 2, "the suspended tab cannot close its own watch");

    await inspector.send("Debugger.disable");
    await untilCount(first, "lamp", "9 left");
    await shop.adjust("lamp", 1);
    await Promise.all([untilCount(first, "lamp", "10 left"), untilCount(second, "lamp", "10 left")]);
    await until(() => watches.size === 1, "the suspended tab has closed its watch");
  });

  // Headless Chromium has no back/forward cache, so the test dispatches the browser's events.
  it("releases lock and connection when it is left, and catches up when it is restored", async () => {
    await using proxy = await startTcpProxy({ target: { port: app.port } });
    await using visitor = await visit(browser);
    const page = await visitor.open(proxy.url("http"));
    await untilStatus(page, "Live");
    const left = visitor.context.waitForEvent("requestfailed", (request) => isWatch(request));
    await page.evaluate(() => dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true })));
    await left;
    await until(
      () => page.evaluate(async () => (await navigator.locks.query()).held?.length === 0),
      "the lock is free",
    );
    await proxy.freeze();
    await shop.adjust("pan", -2);
    const statusAtOnce = await page.evaluate(async () => {
      dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
      await Promise.resolve();
      return document.querySelector(".status-word")?.textContent;
    });
    assert.equal(statusAtOnce, "Reconnecting");
    await untilCount(page, "pan", "Only 4 left");
    proxy.resetConnections();
    await proxy.pass();
    await untilStatus(page, "Live");
    await untilCount(page, "pan", "Only 2 left");
  });

  it("stays live on a slow connection", async () => {
    await using proxy = await startTcpProxy({ target: { port: app.port } });
    await proxy.throttle(60_000);
    await using visitor = await visit(browser);
    const page = await visitor.open(proxy.url("http"));
    await untilStatus(page, "Live");
    await proxy.delay(300);
    await shop.adjust("bowl", 5);
    await untilCount(page, "bowl", "50 left");
    await untilStatus(page, "Live");
  });

  it("polls where a proxy buffers streams, and shows it", async () => {
    await using proxy = await startBufferingProxy(app.port);
    await using visitor = await visit(browser);
    const polls: string[] = [];
    visitor.context.on("request", (request) => {
      if (request.url().includes("/BatchGetStock?")) polls.push(request.method());
    });
    const page = await visitor.open(proxy.url);
    await untilStatus(page, "Polling");
    await shop.adjust("pen", -1);
    await untilCount(page, "pen", "15 left");
    assert.ok(polls.length > 0 && polls.every((method) => method === "GET"));
  });

  it("keeps the previous list while the server is unavailable, offers a retry, and loads the new one afterwards", async () => {
    await using proxy = await startTcpProxy({ target: { port: app.port } });
    await using visitor = await visit(browser);
    const page = await visitor.open(proxy.url("http"));
    await untilStatus(page, "Live");
    await proxy.cut();
    await page.getByLabel("Search").fill("mug");
    const failure = page.locator('[data-message="failed"]');
    await failure.waitFor();
    assert.equal(await page.locator(".card").count(), SMALL_SHOP.length);
    await failure.getByRole("button", { name: "Try again" }).waitFor();
    await proxy.pass();
    await failure.waitFor({ state: "detached" });
    await until(async () => (await page.locator(".card").count()) === 1, "the requested list is shown");
  });
});

describe("the page while the server is unavailable", {
  skip: chromiumNeed.missing,
  concurrency: false,
}, () => {
  let app: AppProcess;
  let shop: Shop;
  let browser: Browser;

  before(async () => {
    [app, browser] = await Promise.all([startAppProcess(), startBrowser()]);
    shop = shopAt(app.url);
    await shop.put(...SMALL_SHOP);
  });
  after(async () => {
    shop?.close();
    await browser?.close();
    await app?.stop();
  });

  it("recovers when the server is killed and restarted, even with a store that lost its data", async () => {
    await using visitor = await visit(browser);
    const page = await visitor.open(app.url);
    await untilStatus(page, "Live");
    for (let sold = 0; sold < 3; sold++) await shop.adjust("mat", 1);
    await untilCount(page, "mat", "Only 3 left");
    await app.kill9();
    await untilStatus(page, "Reconnecting");
    await app.restart();
    shop.close();
    shop = shopAt(app.url);
    await shop.put({ productId: "mat", name: "Wool Felt Mat", declared: 2, price: 39 });
    await untilStatus(page, "Live");
    await untilCount(page, "mat", "Only 2 left");
  });

  it("disconnects when the server asks it to reconnect", async () => {
    await using visitor = await visit(browser);
    const page = await visitor.open(app.url);
    await untilStatus(page, "Live");
    app.process().signal("SIGTERM");
    await untilStatus(page, "Reconnecting");
  });
});

const isWatch = (request: Request): boolean => request.url().endsWith("/WatchStock");

/** The watches that a visitor's tabs hold open, starting now. */
function watchesOf({ context }: Visitor): ReadonlySet<Request> {
  const watches = new Set<Request>();
  context.on("request", (request) => {
    if (isWatch(request)) watches.add(request);
  });
  context.on("requestfailed", (request) => watches.delete(request));
  context.on("requestfinished", (request) => watches.delete(request));
  return watches;
}
