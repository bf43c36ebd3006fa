import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { startAppProcess } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { chromiumNeed, startBrowser, textOf, untilStatus, visit } from "./browser.ts";
import { SMALL_SHOP, shopAt } from "./shop.ts";

const redisNeed = need("redis-server");

describe("the page while the store is unavailable", {
  skip: chromiumNeed.missing || redisNeed.missing,
  concurrency: false,
}, () => {
  it("marks the counts as the last known ones until the store is available again", async () => {
    await using redis = await startRedis();
    await using app = await startAppProcess({
      REDIS_URL: redis.url,
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
      assert.ok(html.includes("Last known counts"), "the server does not mark its HTML");
      await redis.restart();
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
