import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Page } from "playwright";
import { startAppProcess } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { chromiumNeed, startBrowser, textOf, untilStatus, visit } from "./browser.ts";
import { SMALL_SHOP, shopAt } from "./shop.ts";

const redisNeed = need("redis-server");
/** A page knows that its counts are current from the messages of its watch. */
const HEARTBEAT_S = 2;

/** The time that the page shows for its counts, as seconds of the day. */
async function secondsOf(page: Page): Promise<number> {
  const [, hours, minutes, seconds] =
    /as of (\d\d):(\d\d):(\d\d)/.exec(await textOf(page, ".status-age")) ??
    assert.fail("the page shows no time");
  return (Number(hours) * 60 + Number(minutes)) * 60 + Number(seconds);
}

describe("the page while the store is unavailable", {
  skip: chromiumNeed.missing || redisNeed.missing,
  concurrency: false,
}, () => {
  it("shows that no products are loaded while the store was never available, and loads them then", async () => {
    await using redis = await startRedis();
    {
      await using app = await startAppProcess({ REDIS_URL: redis.url });
      const shop = shopAt(app.url);
      await shop.put(...SMALL_SHOP);
      shop.close();
    }
    await redis.kill9();
    await using app = await startAppProcess({ REDIS_URL: redis.url });
    const browser = await startBrowser();
    try {
      await using plain = await visit(browser, { javaScriptEnabled: false });
      const withoutScript = await plain.open(app.url);
      await using visitor = await visit(browser);
      const page = await visitor.open(app.url);
      for (const each of [withoutScript, page]) {
        await each.getByRole("heading", { name: "Products could not be loaded" }).waitFor();
        assert.equal(await textOf(each, ".status-word"), "No counts yet");
      }
      await redis.restart();
      await untilStatus(page, "Live");
      assert.equal(await page.locator(".card").count(), SMALL_SHOP.length);
      await until(async () => {
        await withoutScript.getByRole("link", { name: "Try again" }).click();
        return (await withoutScript.locator(".card").count()) === SMALL_SHOP.length;
      }, "the list is loaded");
      assert.deepEqual(visitor.errors, []);
    } finally {
      await browser.close();
    }
  });

  it("marks the counts as the last known ones until the store is available again", async () => {
    await using redis = await startRedis();
    await using app = await startAppProcess({
      REDIS_URL: redis.url,
      WATCH_HEARTBEAT_MS: String(HEARTBEAT_S * 1_000),
    });
    const shop = shopAt(app.url);
    const browser = await startBrowser();
    try {
      await shop.put(...SMALL_SHOP);
      await using visitor = await visit(browser);
      const page = await visitor.open(app.url);
      await untilStatus(page, "Live");
      await redis.kill9();
      await untilStatus(page, "Last known counts");
      assert.match(await textOf(page, ".status-age"), /as of \d\d:\d\d:\d\d/);
      assert.equal(await page.locator(".product-list").getAttribute("data-current"), "no");
      const html = await (await fetch(app.url)).text();
      assert.match(html, /Last known counts<\/span><span class="status-age"> as of \d\d:\d\d:\d\d UTC</);

      // Pages that are opened now never received fresh counts, and show the same time.
      await using plain = await visit(browser, { javaScriptEnabled: false });
      const withoutScript = await plain.open(app.url);
      assert.equal(await textOf(withoutScript, ".status-word"), "Last known counts");
      await using late = await visit(browser, { timezoneId: "UTC" });
      const watches = late.context.waitForEvent("response", (response) =>
        response.url().endsWith("/WatchStock"),
      );
      const opened = await late.open(app.url);
      await watches;
      await untilStatus(opened, "Last known counts");
      await opened.locator('.status[data-connection="live"]').waitFor();
      assert.equal(await secondsOf(opened), await secondsOf(withoutScript));
      const shown = (await secondsOf(page)) % 3_600;
      const behind = ((await secondsOf(opened)) % 3_600) - shown;
      assert.ok(Math.abs(behind) <= HEARTBEAT_S, `the times of both pages differ by ${behind} s`);
      await redis.restart();
      await untilStatus(opened, "Live");
      await untilStatus(page, "Live");
      await until(
        async () => (await page.locator(".product-list").getAttribute("data-current")) === "yes",
        "the counts are no longer dimmed",
      );
    } finally {
      shop.close();
      await browser.close();
    }
  });
});
