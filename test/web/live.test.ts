import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Browser, Page, Request } from "playwright";
import { type AppProcess, startAppProcess } from "../support/app.ts";
import { until } from "../support/until.ts";
import { chromiumNeed, namesOf, startBrowser, textOf, untilCount, untilStatus, visit } from "./browser.ts";
import { type Shop, SMALL_SHOP, shopAt } from "./shop.ts";

describe("the page, live", { skip: chromiumNeed.missing, concurrency: false }, () => {
  let app: AppProcess;
  let shop: Shop;
  let browser: Browser;

  before(async () => {
    [app, browser] = await Promise.all([startAppProcess(), startBrowser()]);
    shop = shopAt(app.url);
  });
  after(async () => {
    shop?.close();
    await browser?.close();
    await app?.stop();
  });

  it("shows a reservation made over native gRPC", async () => {
    await shop.put(...SMALL_SHOP);
    await using visitor = await visit(browser);
    const page = await visitor.open(app.url);
    await untilStatus(page, "Live");
    await untilCount(page, "mug", "120 left");
    await shop.reserve("mug", 1);
    await untilCount(page, "mug", "119 left");
    assert.deepEqual(visitor.errors, []);
  });

  it("shows and announces low stock, sold out, and back in stock", async () => {
    await shop.put(...SMALL_SHOP);
    await using visitor = await visit(browser);
    const page = await visitor.open(app.url);
    await untilStatus(page, "Live");
    const lamp = page.locator('[data-product-id="lamp"]');
    await shop.reserve("lamp", 5);
    await untilCount(page, "lamp", "Only 3 left");
    // Announced in a separate task, after the count is rendered.
    await page.locator("#announcements", { hasText: /^Desk Lamp: Only 3 left\.$/ }).waitFor({
      state: "attached",
    });
    await shop.reserve("lamp", 3);
    await untilCount(page, "lamp", "Sold out");
    assert.equal(await lamp.locator(".card-note").count(), 0);
    await shop.adjust("lamp", 9);
    await untilCount(page, "lamp", "9 left");
    assert.equal(await textOf(page, '[data-product-id="lamp"] .card-note'), "Back in stock");
    await shop.remove("lamp");
    await untilCount(page, "lamp", "No longer available");
  });

  it("opens one watch for two tabs, and the second continues when the first is closed", async () => {
    await shop.put(...SMALL_SHOP);
    await using visitor = await visit(browser);
    const watches: Request[] = [];
    visitor.context.on("request", (request) => {
      if (request.url().endsWith("/WatchStock")) watches.push(request);
    });
    const first = await visitor.open(app.url);
    await untilStatus(first, "Live");
    const second = await visitor.open(`${app.url}/?sort=price`);
    await untilStatus(second, "Live");
    await shop.reserve("bowl", 2);
    await Promise.all([untilCount(first, "bowl", "43 left"), untilCount(second, "bowl", "43 left")]);
    assert.equal(watches.length, 1, "the second tab opened a watch of its own");

    await first.close();
    await shop.reserve("bowl", 1);
    await untilCount(second, "bowl", "42 left");
    await untilStatus(second, "Live");
    assert.equal(watches.length, 2);
  });

  it("sends a second tab the changes from before it was opened", async () => {
    await shop.put(...SMALL_SHOP, { productId: "late", name: "Late", declared: 7, collectionId: "late" });
    await using visitor = await visit(browser);
    const first = await visitor.open(app.url);
    await untilStatus(first, "Live");
    // A list from before the change, as a cache may have it.
    const html = await (await fetch(`${app.url}/`)).text();
    await shop.reserve("late", 1);
    await untilCount(first, "late", "6 left");
    const second = await visitor.context.newPage();
    await second.route(`${app.url}/`, (route) =>
      route.fulfill({ body: html, contentType: "text/html; charset=utf-8" }),
    );
    await second.goto(`${app.url}/`);
    await untilCount(second, "late", "6 left");
  });

  it("does not change while paused, shows the time of the pause, and catches up", async () => {
    await shop.put(...SMALL_SHOP);
    await using visitor = await visit(browser);
    const page = await visitor.open(app.url);
    await untilStatus(page, "Live");
    await page.getByRole("button", { name: "Pause live updates" }).click();
    await untilStatus(page, "Paused");
    assert.match(await textOf(page, ".status-age"), /as of \d\d:\d\d:\d\d/);
    await using other = await visit(browser);
    const witness = await other.open(app.url);
    await untilStatus(witness, "Live");
    await shop.adjust("pen", -6);
    await untilCount(witness, "pen", "10 left");
    await untilCount(page, "pen", "16 left");
    await page.getByRole("button", { name: "Resume live updates" }).click();
    await untilCount(page, "pen", "10 left");
    await untilStatus(page, "Live");
  });

  it("keeps the order when counts change, and offers to sort again", async () => {
    await shop.put(...SMALL_SHOP);
    await using visitor = await visit(browser);
    const page = await visitor.open(`${app.url}/?sort=-available&collection=kitchen`);
    await untilStatus(page, "Live");
    assert.deepEqual(await namesOf(page), ["Enamel Mug", "Stoneware Bowl", "Carbon Steel Pan"]);
    await shop.adjust("pan", 496);
    await untilCount(page, "pan", "500 left");
    assert.deepEqual(await namesOf(page), ["Enamel Mug", "Stoneware Bowl", "Carbon Steel Pan"]);
    await page.getByRole("button", { name: "1 changed: sort again" }).click();
    await until(
      async () => (await namesOf(page))[0] === "Carbon Steel Pan",
      "the pan, with the most units, is first",
    );
    assert.equal(await page.locator(".sort-again").count(), 0);
  });

  it("does not animate a count that stays in its band", async () => {
    await using merchant = await startAppProcess({ EXACT_COUNT_MAX: "10" });
    const bands = shopAt(merchant.url);
    try {
      await bands.put(...SMALL_SHOP);
      await using visitor = await visit(browser);
      const page = await visitor.open(merchant.url);
      await untilStatus(page, "Live");
      await bands.reserve("mug", 1);
      await bands.reserve("bowl", 37);
      await untilCount(page, "bowl", "8 left");
      const fadeOf = (productId: string) =>
        page.locator(`[data-product-id="${productId}"] .count`).getAttribute("data-fade");
      assert.equal(await textOf(page, '[data-product-id="mug"] .count-text'), "10+ left");
      assert.deepEqual([await fadeOf("mug"), await fadeOf("bowl")], ["none", "odd"]);
    } finally {
      bands.close();
    }
  });

  it("fades a change within 600 ms, and not at all with reduced motion", async () => {
    await shop.put(...SMALL_SHOP);
    for (const reducedMotion of ["no-preference", "reduce"] as const) {
      await using visitor = await visit(browser, { reducedMotion });
      const page = await visitor.open(app.url);
      await untilStatus(page, "Live");
      assert.deepEqual(await animationsOf(page, "bowl"), [], "nothing has changed yet");
      // Observed from before the change, which may arrive before a later observer is installed.
      await page.evaluate(() => {
        const count = document.querySelector('[data-product-id="bowl"] .count');
        new MutationObserver(() => {
          if (count) Object.assign(globalThis, { faded: getComputedStyle(count).animationName });
        }).observe(document.body, { subtree: true, attributes: true, attributeFilter: ["data-fade"] });
      });
      await shop.reserve("bowl", 1);
      const faded = await until(
        () => page.evaluate(() => (globalThis as { faded?: string }).faded),
        "the count has changed on the page",
      );
      assert.equal(faded, reducedMotion === "reduce" ? "none" : "fade-odd");
      const duration = await page
        .locator('[data-product-id="bowl"] .count')
        .evaluate((count) => Number.parseFloat(getComputedStyle(count).animationDuration));
      assert.ok(duration <= 0.6, `the fade takes ${duration} s`);
    }
  });
});

function animationsOf(page: Page, productId: string): Promise<string[]> {
  return page
    .locator(`[data-product-id="${productId}"] .count`)
    .evaluate((count) => count.getAnimations().map((animation) => animation.id));
}
