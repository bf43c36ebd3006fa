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

/** Short, so that a silent connection is given up within the time that a test has; the page is told of it. */
const HEARTBEAT_MS = 800;

// Each test has a product and a line of its own, and spends its time waiting: they run side by side.
describe("the page on a bad line", { skip: chromiumNeed.missing, concurrency: 3 }, () => {
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

  it("says that it reconnects when the line is cut, dims the counts, and comes back by itself", async () => {
    await using proxy = await startTcpProxy({ target: { port: app.port } });
    await using visitor = await visit(browser);
    const page = await visitor.open(proxy.url("http"));
    await untilStatus(page, "Live");
    assert.equal(await page.locator(".shelf").getAttribute("data-current"), "yes");
    await proxy.cut();
    await untilStatus(page, "Reconnecting");
    assert.match(await textOf(page, ".status-age"), /as of \d\d:\d\d:\d\d/);
    assert.equal(await page.locator(".shelf").getAttribute("data-current"), "no");
    await shop.adjust("mug", -20);
    await proxy.pass();
    await untilStatus(page, "Live");
    await untilCount(page, "mug", "100 left");
    assert.equal(await page.locator(".shelf").getAttribute("data-current"), "yes");
  });

  it("tries at once when the browser says that it is back online, and says Offline until then", async () => {
    await using visitor = await visit(browser);
    const page = await visitor.open(app.url);
    await untilStatus(page, "Live");
    await visitor.context.setOffline(true);
    await untilStatus(page, "Offline");
    assert.match(await textOf(page, ".status-age"), /as of/);
    await visitor.context.setOffline(false);
    await untilStatus(page, "Live");
  });

  it("gives up a connection that died silently", async (t) => {
    await using proxy = await startTcpProxy({ target: { port: app.port } });
    await using visitor = await visit(browser);
    const page = await visitor.open(proxy.url("http"));
    await untilStatus(page, "Live");
    await proxy.freeze();
    const frozenMs = performance.now();
    await untilStatus(page, "Reconnecting");
    const silentMs = Math.round(performance.now() - frozenMs);
    t.diagnostic(`it took ${silentMs} ms to notice, with a heartbeat every ${HEARTBEAT_MS} ms`);
    proxy.resetConnections();
    await proxy.pass();
    await untilStatus(page, "Live");
  });

  it("takes over from a tab that is suspended while it watches for all", async () => {
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
    assert.equal(watches.size, 2, "nobody but the tab that stands still can end its own");

    await inspector.send("Debugger.disable");
    await untilCount(first, "lamp", "9 left");
    await shop.adjust("lamp", 1);
    await Promise.all([untilCount(first, "lamp", "10 left"), untilCount(second, "lamp", "10 left")]);
    await until(() => watches.size === 1, "the tab that was suspended watches no more beside the other one");
  });

  // Chromium without a window keeps no page for the way back, so the test says what the browser would.
  it("lets go of lock and connection when it is left, and catches up when it is come back to", async () => {
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
    const saidAtOnce = await page.evaluate(async () => {
      dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
      await Promise.resolve();
      return document.querySelector(".status-word")?.textContent;
    });
    assert.equal(saidAtOnce, "Reconnecting");
    await untilCount(page, "pan", "Only 4 left");
    proxy.resetConnections();
    await proxy.pass();
    await untilStatus(page, "Live");
    await untilCount(page, "pan", "Only 2 left");
  });

  it("stays live on a slow line", async () => {
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

  it("polls where a proxy holds streams back, and says so", async () => {
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

  it("shows the list of before when the server is away, offers another try, and has the new one when it is back", async () => {
    await using proxy = await startTcpProxy({ target: { port: app.port } });
    await using visitor = await visit(browser);
    const page = await visitor.open(proxy.url("http"));
    await untilStatus(page, "Live");
    await proxy.cut();
    await page.getByLabel("Search").fill("mug");
    const failure = page.locator('[data-message="failed"]');
    await failure.waitFor();
    assert.equal(await page.locator(".label").count(), SMALL_SHOP.length);
    await failure.getByRole("button", { name: "Try again" }).waitFor();
    await proxy.pass();
    await failure.waitFor({ state: "detached" });
    await until(async () => (await page.locator(".label").count()) === 1, "the list asked for is there");
  });
});

describe("the page while the server is away", { skip: chromiumNeed.missing, concurrency: false }, () => {
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

  it("comes back when the server is killed and started again, even with a store that began anew", async () => {
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

  it("leaves when the server asks it to", async () => {
    await using visitor = await visit(browser);
    const page = await visitor.open(app.url);
    await untilStatus(page, "Live");
    app.process().signal("SIGTERM");
    await untilStatus(page, "Reconnecting");
  });
});

const isWatch = (request: Request): boolean => request.url().endsWith("/WatchStock");

/** The watches that a visitor's tabs hold open, from now on. */
function watchesOf({ context }: Visitor): ReadonlySet<Request> {
  const watches = new Set<Request>();
  context.on("request", (request) => {
    if (isWatch(request)) watches.add(request);
  });
  context.on("requestfailed", (request) => watches.delete(request));
  context.on("requestfinished", (request) => watches.delete(request));
  return watches;
}
