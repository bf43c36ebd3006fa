import { type ClientHttp2Session, connect } from "node:http2";
import { setTimeout as pause } from "node:timers/promises";
import type { Page } from "playwright";
import { startAppProcess } from "../support/app.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { startBrowser, untilCount, untilStatus, visit } from "../web/browser.ts";
import { shopAt } from "../web/shop.ts";
import type { Bench } from "./bench.ts";

const RESERVES = 200;
/** Above the watch's least interval of 100 ms, so that each Reserve has a message of its own. */
const BETWEEN_RESERVES_MS = 150;
const UNITS = 10_000;
const WATCHERS = [1, 1_000];
const WATCHES_PER_CONNECTION = 100;
const PRODUCT_ID = "mug";

/**
 * From the moment in which Orders hears that a unit is reserved to the moment in which the shopper's page
 * shows one less, in a real Chromium, alone and among many watchers. Both clocks are the machine's.
 */
export const measureLiveLatency: Bench = async (print) => {
  for (const watchers of WATCHERS) {
    await using redis = await startRedis();
    await using app = await startAppProcess({ REDIS_URL: redis.url });
    const shop = shopAt(app.url);
    const browser = await startBrowser();
    const sessions: ClientHttp2Session[] = [];
    try {
      await shop.put({ productId: PRODUCT_ID, name: "Enamel Mug", declared: UNITS });
      await using visitor = await visit(browser);
      const page = await visitor.open(app.url);
      await untilStatus(page, "Live");
      await untilCount(page, PRODUCT_ID, `${UNITS.toLocaleString("en")} left`);
      sessions.push(...(await openWatches(app.url, watchers - 1)));
      await recordCounts(page);
      const delays: number[] = [];
      for (let n = 1; n <= RESERVES; n++) {
        await shop.reserve(PRODUCT_ID, 1);
        const acknowledgedAt = performance.timeOrigin + performance.now();
        const text = `${(UNITS - n).toLocaleString("en")} left`;
        const shownAt = await until(
          () => page.evaluate((key) => Reflect.get(globalThis, "shownAt").get(key), text),
          text,
        );
        delays.push(Math.max(0, shownAt - acknowledgedAt));
        await pause(BETWEEN_RESERVES_MS);
      }
      delays.sort((a, b) => a - b);
      print(
        `${watchers} watching: p50 ${at(delays, 0.5)} ms, p99 ${at(delays, 0.99)} ms from the acknowledged Reserve to the DOM (${RESERVES} times)`,
      );
    } finally {
      for (const session of sessions) {
        session.destroy();
      }
      await browser.close();
      shop.close();
    }
  }
  print("targets: p99 30 ms alone, 200 ms among many");
};

/** Notes in the page when each text of a count first stood there. */
async function recordCounts(page: Page): Promise<void> {
  await page.evaluate(`
    globalThis.shownAt = new Map();
    new MutationObserver(() => {
      const text = document.querySelector('[data-product-id="${PRODUCT_ID}"] .count-text').textContent.trim();
      if (!shownAt.has(text)) shownAt.set(text, performance.timeOrigin + performance.now());
    }).observe(document.body, { subtree: true, childList: true, characterData: true });
  `);
}

/** Opens watches of every product over gRPC, and resolves when each has its snapshot. */
async function openWatches(url: string, count: number): Promise<ClientHttp2Session[]> {
  const sessions: ClientHttp2Session[] = [];
  const emptyRequest = Buffer.alloc(5);
  for (let opened = 0; opened < count; ) {
    const session = connect(url);
    sessions.push(session);
    const batch = Math.min(WATCHES_PER_CONNECTION, count - opened);
    await Promise.all(
      Array.from({ length: batch }, async () => {
        const stream = session.request({
          ":method": "POST",
          ":path": "/inventory.v1.StockService/WatchStock",
          "content-type": "application/grpc",
          te: "trailers",
        });
        const begun = Promise.withResolvers<void>();
        stream.on("error", () => {});
        stream.once("data", () => begun.resolve());
        stream.resume();
        stream.end(emptyRequest);
        await begun.promise;
      }),
    );
    opened += batch;
  }
  return sessions;
}

function at(sorted: readonly number[], quantile: number): string {
  return (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * quantile))] ?? Number.NaN).toFixed(1);
}
