import { execFile } from "node:child_process";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { promisify } from "node:util";
import { fromJsonString } from "@bufbuild/protobuf";
import type { Page } from "playwright";
import { GetStockResponseSchema } from "../../gen/inventory/v1/stock_pb.ts";
import { until } from "../support/until.ts";
import { chromiumNeed, startBrowser, untilCount, untilStatus, visit } from "../web/browser.ts";
import { shopAt } from "../web/shop.ts";
import type { Bench, BenchContext } from "./bench-context.ts";
import { fillCatalog, productIdOf } from "./catalog.ts";
import { LoadProcess } from "./load/load-process.ts";
import type { Outcome } from "./outcome.ts";
import { startPinnedRedis, startService } from "./processes.ts";
import { quantile } from "./statistics.ts";

const RESERVES = 30;
/** Above the minimum interval of a watch, 100 ms, so that each Reserve has its own message. */
const BETWEEN_RESERVES_MS = 150;
const MIN_INTERVAL_MS = 100;
const PRODUCT_ID = productIdOf(1);
const BUILD_WEB = join(import.meta.dirname, "../../tools/build-web.ts");
const CROWDS = [
  { watchers: 1, target: 30, pageTarget: 30 },
  { watchers: 5_000, target: 200, pageTarget: 60 },
];

/**
 * Time from the response to Orders' Reserve until watchers, one of them a page in a real Chromium, have the new count. All
 * processes use the same clock.
 */
export const measureLive: Bench = async (context) => {
  await promisify(execFile)(process.execPath, [BUILD_WEB, "--if-stale"]);
  const outcomes: Outcome[] = [];
  for (const { watchers, target, pageTarget } of CROWDS) {
    await using servers = new AsyncDisposableStack();
    const redis = servers.use(await startPinnedRedis());
    await fillCatalog(redis.url, 1);
    const { url } = servers.use(await startService(redis));
    const load = servers.use(new LoadProcess(context.signal));
    await load.run("openWatchers", {
      crowd: "all",
      url,
      protocol: "h2",
      productId: PRODUCT_ID,
      minIntervalMs: MIN_INTERVAL_MS,
      count: watchers,
    });
    const all = { crowd: "all", url, reserves: RESERVES, betweenMs: BETWEEN_RESERVES_MS };
    const p99s: number[] = [];
    for (let round = 0; round < context.rounds; round++) {
      context.signal.throwIfAborted();
      const { answer } = await load.run("delays", all);
      p99s.push(quantile(answer.delaysMs, 0.99));
    }
    outcomes.push({
      what: `Reserve acknowledged → the count at ${watchers === 1 ? "the only watcher" : `each of ${watchers} watchers`}, p99`,
      unit: "ms",
      here: p99s,
      target: { atMost: target },
    });
    if (chromiumNeed.missing) {
      context.note(`Left out: the page: ${chromiumNeed.missing}`);
    } else {
      const delays = await measurePage(url, context);
      context.note(`the page's p50 with ${watchers} watching: ${quantile(delays, 0.5).toFixed(1)} ms`);
      outcomes.push({
        what: `Reserve acknowledged → the count on a page, ${watchers} watching besides, p99`,
        unit: "ms",
        here: [quantile(delays, 0.99)],
        target: { atMost: pageTarget },
      });
    }
  }
  return outcomes;
};

async function measurePage(url: string, { rounds, signal }: BenchContext): Promise<number[]> {
  const shop = shopAt(url);
  const browser = await startBrowser();
  try {
    await using visitor = await visit(browser);
    const page = await visitor.open(url);
    await untilStatus(page, "Live");
    let left = await countNow(url);
    await untilCount(page, PRODUCT_ID, textOf(left));
    await recordCounts(page);
    const delays: number[] = [];
    for (let n = 0; n < RESERVES * rounds; n++) {
      signal.throwIfAborted();
      await pause(BETWEEN_RESERVES_MS);
      await shop.reserve(PRODUCT_ID, 1);
      const acknowledgedAt = performance.timeOrigin + performance.now();
      left -= 1;
      const text = textOf(left);
      const shownAt = await until(
        () => page.evaluate((key) => Reflect.get(globalThis, "shownAt").get(key), text),
        text,
      );
      delays.push(Math.max(0, shownAt - acknowledgedAt));
    }
    return delays;
  } finally {
    await browser.close();
    shop.close();
  }
}

function textOf(count: number): string {
  return `${count.toLocaleString("en")} left`;
}

async function countNow(url: string): Promise<number> {
  const response = await fetch(`${url}/inventory.v1.StockService/GetStock`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ productId: PRODUCT_ID }),
  });
  return fromJsonString(GetStockResponseSchema, await response.text()).stock?.available ?? 0;
}

/** Records in the page when each text of a count first appeared. */
async function recordCounts(page: Page): Promise<void> {
  await page.evaluate(`
    globalThis.shownAt = new Map();
    new MutationObserver(() => {
      const text = document.querySelector('[data-product-id="${PRODUCT_ID}"] .count-text').textContent.trim();
      if (!shownAt.has(text)) shownAt.set(text, performance.timeOrigin + performance.now());
    }).observe(document.body, { subtree: true, childList: true, characterData: true });
  `);
}
