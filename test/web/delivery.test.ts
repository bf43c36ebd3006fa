import assert from "node:assert/strict";
import { request } from "node:http";
import { after, before, describe, it } from "node:test";
import { brotliDecompressSync, gunzipSync } from "node:zlib";
import { type AppProcess, startAppProcess } from "../support/app.ts";
import { SMALL_SHOP, shopAt } from "./shop.ts";

const PAGE_JS_BYTES_MAX = 50_000;
const EMBED_BYTES_MAX = 6_144;

interface HttpResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
}

describe("how the page is served", () => {
  let app: AppProcess;

  before(async () => {
    app = await startAppProcess({
      EXACT_COUNT_MAX: "10",
      LOW_STOCK_MAX: "4",
      SHOP_CURRENCY: "USD",
      SHOP_NAME: "Söhne & Co",
    });
    const shop = shopAt(app.url);
    await shop.put(...SMALL_SHOP);
    shop.close();
  });
  after(() => app?.stop());

  /** The response as sent: `fetch` would decompress it. */
  function send(path: string, headers: Record<string, string> = {}, method = "GET"): Promise<HttpResponse> {
    return new Promise((resolve, reject) => {
      const sent = request(`${app.url}${path}`, { method, headers }, (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: Buffer.concat(chunks),
          }),
        );
      });
      sent.on("error", reject);
      sent.end();
    });
  }

  async function scriptsOf(html: string): Promise<string[]> {
    return [...html.matchAll(/<script[^>]* src="([^"]+)"/g)].map((match) => match[1] ?? "");
  }

  it("has the first list in the HTML, with the configured bands and currency", async () => {
    const { body, headers } = await send("/");
    const html = body.toString();
    assert.equal(headers["content-type"], "text/html; charset=utf-8");
    for (const text of ["Enamel Mug", "$14.00", "10+ left", "8 left", "Only 4 left", "Sold out"]) {
      assert.ok(html.includes(text), `"${text}" is not in the HTML`);
    }
    const shown = html.slice(html.indexOf("<main"));
    assert.ok(!shown.includes("120"), "an exact count above the band is in the list");
  });

  it("allows and needs no inline scripts or styles", async () => {
    for (const path of ["/", "/embed-demo.html"]) {
      const { body, headers } = await send(path);
      const policy = String(headers["content-security-policy"]);
      assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self'/);
      assert.ok(!policy.includes("unsafe"));
      assert.equal(headers["x-content-type-options"], "nosniff");
      assert.equal(headers["referrer-policy"], "same-origin");
      const html = body.toString();
      assert.doesNotMatch(html, /<script(?![^>]* src=)|<style|\sstyle=|\son\w+=/);
    }
  });

  it("negotiates the content encoding, and answers a matching ETag with 304", async () => {
    const plain = await send("/embed-demo.html");
    const br = await send("/embed-demo.html", { "accept-encoding": "gzip, br" });
    const gzip = await send("/embed-demo.html", { "accept-encoding": "br;q=0, gzip" });
    assert.equal(plain.headers["content-encoding"], undefined);
    assert.equal(br.headers["content-encoding"], "br");
    assert.equal(gzip.headers["content-encoding"], "gzip");
    assert.ok(brotliDecompressSync(br.body).equals(plain.body));
    assert.ok(gunzipSync(gzip.body).equals(plain.body));
    assert.equal(plain.headers["vary"], "accept-encoding");
    assert.equal(plain.headers["cache-control"], "no-cache");
    const again = await send("/embed-demo.html", {
      "accept-encoding": "br",
      "if-none-match": String(br.headers["etag"]),
    });
    assert.equal(again.status, 304);
    assert.equal(again.body.length, 0);
  });

  it("answers HEAD with the headers of GET", async () => {
    for (const path of ["/", "/embed.js"]) {
      const head = await send(path, {}, "HEAD");
      assert.equal(head.status, 200);
      assert.equal(head.body.length, 0);
      assert.ok(Number(head.headers["content-length"]) > 1_000);
    }
  });

  it("serves hashed files as immutable, within the size limit", async () => {
    const html = (await send("/")).body.toString();
    const scripts = await scriptsOf(html);
    assert.equal(scripts.length, 1);
    let bytes = 0;
    for (const path of scripts) {
      const { headers, body } = await send(path, { "accept-encoding": "gzip" });
      assert.match(path, /^\/assets\/[\w-]+-[\w-]{8}\.js$/);
      assert.equal(headers["cache-control"], "public, max-age=31536000, immutable");
      bytes += body.length;
      assert.doesNotMatch(
        gunzipSync(body).toString(),
        /\bimport\(|from"\.\//,
        "it loads more than is measured",
      );
    }
    assert.ok(bytes <= PAGE_JS_BYTES_MAX, `the page's script has ${bytes} bytes`);
  });

  it("serves the element to every origin, within its size limit, with the configured settings", async () => {
    const { headers, body } = await send("/embed.js", { "accept-encoding": "gzip" });
    assert.equal(headers["access-control-allow-origin"], "*");
    assert.equal(headers["cross-origin-resource-policy"], "cross-origin");
    assert.ok(body.length <= EMBED_BYTES_MAX, `the element's script has ${body.length} bytes`);
    assert.match(gunzipSync(body).toString(), /"lowStockMax":4,"exactCountMax":10/);
  });

  it("answers 404 with a page for people, and with a line of text for programs", async () => {
    const page = await send("/nothing", { accept: "text/html,*/*;q=0.8" });
    assert.equal(page.status, 404);
    assert.equal(page.headers["content-type"], "text/html; charset=utf-8");
    assert.equal(page.headers["cache-control"], "no-store");
    assert.match(String(page.headers["content-security-policy"]), /^default-src 'none'/);
    const html = page.body.toString();
    assert.match(html, /<h1 dir="auto">Söhne &#38; Co<\/h1>/);
    assert.match(html, /There is no page at this address/);
    assert.match(html, /<a href="\/">All products<\/a>/);
    assert.doesNotMatch(html, /<script/);
    const again = await send("/nothing", {
      accept: "text/html",
      "if-none-match": String(page.headers["etag"]),
    });
    assert.equal(again.status, 404);
    const text = await send("/nothing");
    assert.deepEqual([text.status, text.body.toString()], [404, "Not found\n"]);
    assert.equal((await send("/nothing", { accept: "text/html" }, "POST")).body.toString(), "Not found\n");
  });

  it("has the name of the shop, and lets texts have their own direction", async () => {
    const html = (await send("/")).body.toString();
    assert.match(html, /<title>Söhne &#38; Co: live stock<\/title>/);
    for (const part of ["card-name", "card-description", "card-collection"]) {
      assert.match(html, new RegExp(`class="${part}" dir="auto"`));
    }
    assert.doesNotMatch(html, /cart|basket/i);
  });

  it("answers 404 at other paths, and serves nothing outside of its folder", async () => {
    for (const path of ["/nothing", "/assets/..%2f..%2fpackage.json", "/.vite/manifest.json", "/assets/"]) {
      assert.equal((await send(path)).status, 404);
    }
  });
});
