import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { type Browser, type BrowserContextOptions, chromium } from "playwright";
import { type AppProcess, startAppProcess } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { chromiumNeed, untilCount, untilStatus, type Visitor, visit } from "../web/browser.ts";
import { type Shop, shopAt } from "../web/shop.ts";
import { EDGES, type Edge } from "./edges.ts";

const TABS = 8;
/** The protocol over which the browser loaded the page. */
const PROTOCOL = "performance.getEntriesByType('navigation')[0].nextHopProtocol";
const OVERLOOKING: BrowserContextOptions = { ignoreHTTPSErrors: true };

const { caddy, nginx } = EDGES;

describe("the page behind an edge", { skip: chromiumNeed.missing || need("openssl").missing }, () => {
  let app: AppProcess;
  let shop: Shop;
  let browser: Browser;
  let edge: Edge | undefined;
  let pins = 100;

  before(async () => {
    app = await startAppProcess({ TRUSTED_PROXIES: "127.0.0.1" });
    shop = shopAt(app.url);
    edge = caddy.program.missing ? undefined : await caddy.start({ upstreams: [app.port] });
    browser = await chromium.launch({
      executablePath: chromiumNeed.path,
      args: [
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP localhost 127.0.0.1",
        // Caddy with HTTP/3 only. Chromium does not ignore certificate errors over QUIC.
        ...(edge
          ? [
              "--enable-quic",
              `--origin-to-force-quic-on=localhost:${edge.port}`,
              `--ignore-certificate-errors-spki-list=${edge.spki}`,
            ]
          : []),
      ],
    });
  });
  after(async () => {
    shop?.close();
    await browser?.close();
    await edge?.[Symbol.asyncDispose]();
    await app?.stop();
  });

  /** Opens tabs, waits until all are live and show a change, and checks their protocol. */
  async function assertLive(visitor: Visitor, url: string, tabs: number, protocol: string): Promise<void> {
    await shop.put({ productId: "pin", name: "Pin", declared: ++pins });
    const pages = await Promise.all(Array.from({ length: tabs }, () => visitor.open(url)));
    await Promise.all(pages.map((page) => untilStatus(page, "Live")));
    for (const page of pages) {
      assert.equal(await page.evaluate(PROTOCOL), protocol);
    }
    await shop.put({ productId: "pin", name: "Pin", declared: ++pins });
    await Promise.all(pages.map((page) => untilCount(page, "pin", `${pins} left`)));
    assert.deepEqual(visitor.errors, []);
  }

  it(`is live in ${TABS} tabs behind nginx, over HTTP/2, with one watch`, {
    skip: nginx.program.missing,
  }, async () => {
    await using other = await nginx.start({ upstreams: [app.port] });
    await using visitor = await visit(browser, OVERLOOKING);
    const watches: string[] = [];
    visitor.context.on("request", (request) => {
      if (request.url().endsWith("/WatchStock")) watches.push(request.url());
    });
    await assertLive(visitor, other.url, TABS, "h2");
    assert.equal(watches.length, 1);
  });

  it(`is live in ${TABS} tabs behind Caddy, over HTTP/2, with a watch each: more than the connections of HTTP/1.1`, {
    skip: caddy.program.missing,
  }, async () => {
    await using other = await caddy.start({ upstreams: [app.port] });
    await using visitor = await visit(browser, OVERLOOKING);
    await visitor.context.addInitScript("Object.defineProperty(navigator, 'locks', { value: undefined })");
    await assertLive(visitor, other.url, TABS, "h2");
  });

  it("is live behind Caddy over HTTP/3", { skip: caddy.program.missing }, async () => {
    assert.ok(edge);
    await using visitor = await visit(browser);
    await assertLive(visitor, edge.url, 1, "h3");
  });
});
