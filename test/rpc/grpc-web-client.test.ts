import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Code } from "@connectrpc/connect";
import type { Browser, Page } from "playwright";
import { build } from "vite";
import { startTestApp, type TestApp } from "../support/app.ts";
import { until } from "../support/until.ts";
import { chromiumNeed, startBrowser, type Visitor, visit } from "../web/browser.ts";
import { type Shop, SMALL_SHOP, shopAt } from "../web/shop.ts";
import type { StockClient } from "./grpc-web-client.ts";

/** The client as one script that a page can load. */
async function bundle(): Promise<string> {
  const result = await build({
    configFile: false,
    logLevel: "warn",
    build: {
      write: false,
      minify: false,
      lib: { entry: join(import.meta.dirname, "grpc-web-client.ts"), formats: ["iife"], name: "client" },
    },
  });
  const outputs = [result].flat().flatMap((each) => ("output" in each ? each.output : []));
  const chunk = outputs.find((each) => each.type === "chunk");
  assert.ok(chunk, "the client is bundled");
  return chunk.code;
}

for (const LANE of ["on", "off"]) {
  describe(`the grpc-web client in a browser, with LANE=${LANE}`, { skip: chromiumNeed.missing }, () => {
    let storefront: Server;
    let app: TestApp;
    let shop: Shop;
    let browser: Browser;
    let visitor: Visitor;
    let page: Page;
    /** The messages of the open watch, as they arrive. */
    let arrived: { stocks?: { productId: string; available?: number }[]; lastOfSnapshot?: boolean }[] = [];
    let isWatching = true;

    before(async () => {
      const script = await bundle();
      // A page of another origin, as a storefront is.
      storefront = createServer((request, response) => {
        const isScript = request.url === "/client.js";
        response.setHeader("content-type", isScript ? "text/javascript" : "text/html");
        response.end(isScript ? script : "<!doctype html><script src=/client.js></script>");
      }).listen(0, "127.0.0.1");
      await once(storefront, "listening");
      const origin = `http://127.0.0.1:${(storefront.address() as AddressInfo).port}`;
      app = await startTestApp({ LANE, EMBED_ORIGINS: origin });
      shop = shopAt(app.url);
      await shop.put(...SMALL_SHOP);
      browser = await startBrowser();
      visitor = await visit(browser);
      page = await visitor.open(origin);
      await page.exposeFunction("onMessage", (message: (typeof arrived)[number]) => {
        arrived.push(message);
        return isWatching;
      });
    });
    after(async () => {
      await visitor?.[Symbol.asyncDispose]();
      await browser?.close();
      shop?.close();
      await app?.stop();
      storefront?.close();
    });

    const get = (format: string, request: object, metadata: Record<string, string> = {}) =>
      page.evaluate(
        ([url, ...rest]) => (Reflect.get(globalThis, "stockClient") as StockClient).get(url, ...rest),
        [app.url, format, request, metadata] as [string, string, never, Record<string, string>],
      );
    const watch = (request: object) =>
      page.evaluate(
        ([url, ...rest]) => (Reflect.get(globalThis, "stockClient") as StockClient).watch(url, ...rest),
        [app.url, "text", request] as [string, string, never],
      );

    for (const format of ["text", "binary"]) {
      it(`reads a product in the format ${format}`, async () => {
        const { messages, code } = await get(format, { productId: "mug" });
        assert.equal(code, 0);
        assert.partialDeepStrictEqual(messages, [{ stock: { productId: "mug" } }]);
      });

      it(`gets the code and the message of an error in the format ${format}`, async () => {
        const unknown = await get(format, { productId: "nothing – nowhere" });
        assert.equal(unknown.code, Code.NotFound);
        assert.match(decodeURIComponent(unknown.text), /"nothing – nowhere"/);
        const invalid = await get(format, { productId: "" });
        assert.equal(invalid.code, Code.InvalidArgument);
        assert.match(decodeURIComponent(invalid.text), /product_id/);
        const late = await get(format, { productId: "mug" }, { "grpc-timeout": "0m" });
        assert.equal(late.code, Code.DeadlineExceeded);
      });
    }

    it("watches a product: the snapshot, then each change when it happens", async () => {
      arrived = [];
      isWatching = true;
      const watching = watch({ productIds: ["bowl"] });
      await until(() => arrived.some(({ lastOfSnapshot }) => lastOfSnapshot), "the snapshot arrives");
      const units = (): number | undefined => arrived.flatMap(({ stocks = [] }) => stocks).at(-1)?.available;
      const before = units() ?? 0;
      await shop.reserve("bowl", 1);
      await until(() => units() === before - 1, "the first change arrives while the stream is open");
      await shop.reserve("bowl", 2);
      await until(() => units() === before - 3, "the second change arrives while the stream is open");
      isWatching = false;
      await shop.reserve("bowl", 1);
      assert.equal((await watching).code, 0);
    });

    it("gets the error of a watch that is refused", async () => {
      const { code, text, messages } = await watch({ productIds: [""] });
      assert.deepEqual(messages, []);
      assert.equal(code, Code.InvalidArgument);
      assert.match(decodeURIComponent(text), /product_ids\[0\]/);
    });
  });
}
