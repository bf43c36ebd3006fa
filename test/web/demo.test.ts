import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, describe, it } from "node:test";
import type { Browser, Locator, Page } from "playwright";
import { startTestApp, type TestApp } from "../support/app.ts";
import { chromiumNeed, startBrowser, untilCount, untilStatus, visit } from "./browser.ts";
import { type Shop, shopAt } from "./shop.ts";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const cardOf = (page: Page, productId: string): Locator => page.locator(`[data-product-id="${productId}"]`);
const buttonOf = (page: Page, productId: string, name: string): Locator =>
  cardOf(page, productId).getByRole("button", { name });
const textIs = (page: Page, productId: string, text: string | RegExp): Promise<void> =>
  cardOf(page, productId).locator(".hold-text", { hasText: text }).waitFor();
const untilAnnounced = (page: Page, text: string): Promise<void> =>
  page.locator("#announcements", { hasText: text }).waitFor({ state: "attached" });

describe("the demo on the page", { skip: chromiumNeed.missing, concurrency: false }, () => {
  let app: TestApp;
  let shop: Shop;
  let browser: Browser;

  before(async () => {
    // Without the demo's shoppers, counts change by what the test does.
    [app, browser] = await Promise.all([
      startTestApp({ DEMO: "on" }, { demoShoppers: false, visitorLimits: { perVisitorMax: 100 } }),
      startBrowser(),
    ]);
    shop = shopAt(app.url);
  });
  after(async () => {
    shop?.close();
    await browser?.close();
    await app?.stop();
  });

  it("reserves, buys and releases a unit, which a second window shows", async () => {
    await using visitor = await visit(browser);
    await using other = await visit(browser);
    const [page, second] = await Promise.all([visitor.open(app.url), other.open(app.url)]);
    await Promise.all([untilStatus(page, "Live"), untilStatus(second, "Live")]);
    assert.equal(await page.getByRole("heading", { level: 1 }).textContent(), "Harbour Goods");
    await untilCount(second, "demo-14", "200 left");
    await buttonOf(page, "demo-14", "Reserve 1 Dot Grid Notebook").click();
    await Promise.all([untilCount(page, "demo-14", "199 left"), untilCount(second, "demo-14", "199 left")]);
    await textIs(page, "demo-14", /Held for you\s*(1:00|0:5\d)/);
    await untilAnnounced(page, "Dot Grid Notebook: 1 held for you for");
    assert.equal(await buttonOf(second, "demo-14", "Buy").count(), 0, "the hold is the other window's");

    // A reload keeps the hold.
    await page.reload();
    await buttonOf(page, "demo-14", "Release").click();
    await textIs(page, "demo-14", "Released");
    await untilCount(second, "demo-14", "200 left");

    await buttonOf(page, "demo-14", "Reserve 1").click();
    await buttonOf(page, "demo-14", "Buy").click();
    await textIs(page, "demo-14", "You bought 1");
    await untilCount(second, "demo-14", "199 left");
    assert.deepEqual([...visitor.errors, ...other.errors], []);
  });

  it("can be used with the keyboard, and has no violation that axe finds", async () => {
    await using visitor = await visit(browser, { reducedMotion: "reduce" });
    const page = await visitor.open(app.url);
    await untilStatus(page, "Live");
    await buttonOf(page, "demo-13", "Reserve 1").press("Enter");
    const buy = buttonOf(page, "demo-13", "Buy");
    await buy.waitFor();
    assert.ok(await buy.evaluate((button) => button === document.activeElement), "the focus moves to Buy");
    await page.evaluate(AXE);
    for (const colorScheme of ["light", "dark"] as const) {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      const { violations } = await page.evaluate(() => globalThis.axe.run({ resultTypes: ["violations"] }));
      assert.deepEqual(
        violations.map(({ id, nodes }) => `${id}: ${nodes[0]?.html}`),
        [],
        colorScheme,
      );
    }
    await page.setViewportSize({ width: 320, height: 640 });
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 320);
    const heights = await page
      .locator(".hold button")
      .evaluateAll((buttons) => buttons.map((button) => button.getBoundingClientRect().height));
    assert.ok(Math.min(...heights) >= 44, `a button has a height of ${Math.min(...heights)} px`);
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await textIs(page, "demo-13", "Released");
    const isFocused = await buttonOf(page, "demo-13", "Reserve 1").evaluate(
      (button) => button === document.activeElement,
    );
    assert.ok(isFocused, "the focus moves back");
  });

  it("disables the button of a product that is sold out, and of every product without a connection", async () => {
    await using visitor = await visit(browser);
    const page = await visitor.open(app.url);
    await untilStatus(page, "Live");
    await shop.reserve("demo-18", 3);
    await textIs(page, "demo-18", "Sold out: no unit to reserve");
    assert.ok(await buttonOf(page, "demo-18", "Reserve 1").isDisabled());
    await visitor.context.setOffline(true);
    await textIs(page, "demo-17", "No connection: nothing can be reserved now");
    assert.ok(await buttonOf(page, "demo-17", "Reserve 1").isDisabled());
    await visitor.context.setOffline(false);
    await textIs(page, "demo-17", "Holds one unit for 60 seconds");
    await shop.adjust("demo-18", 1);
    await textIs(page, "demo-18", "Holds one unit for 60 seconds");
    assert.ok(await buttonOf(page, "demo-18", "Reserve 1").isEnabled());
  });

  it("says that a purchase had no answer, and buys once when it is repeated", async () => {
    await using visitor = await visit(browser);
    const page = await visitor.open(app.url);
    await untilStatus(page, "Live");
    await buttonOf(page, "demo-16", "Reserve 1").click();
    await untilCount(page, "demo-16", "24 left");
    // The request arrives, and its response is lost.
    await page.route("**/demo/commit", async (route) => {
      await route.fetch();
      await route.abort();
    });
    await buttonOf(page, "demo-16", "Buy").click();
    await textIs(page, "demo-16", "No answer. Try again.");
    await page.unroute("**/demo/commit");
    await buttonOf(page, "demo-16", "Buy").click();
    await textIs(page, "demo-16", "You bought 1");
    await untilCount(page, "demo-16", "24 left");
  });

  it("shows that a hold has expired", async () => {
    await using short = await startTestApp(
      { DEMO: "on" },
      { demoShoppers: false, visitorLimits: { holdMs: 2_000 } },
    );
    await using visitor = await visit(browser);
    const page = await visitor.open(short.url);
    await untilStatus(page, "Live");
    await buttonOf(page, "demo-24", "Reserve 1").click();
    await untilCount(page, "demo-24", "79 left");
    await textIs(page, "demo-24", "Expired: the unit is free again");
    await untilCount(page, "demo-24", "80 left");
    await untilAnnounced(page, "Thermos: Expired");
    assert.ok(await buttonOf(page, "demo-24", "Reserve 1").isEnabled());
  });
});
