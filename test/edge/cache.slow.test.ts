import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, request as forward, Agent as PlainAgent } from "node:http";
import { Agent, request } from "node:https";
import type { AddressInfo } from "node:net";
import { describe, it } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { startAppProcess, startTestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { until } from "../support/until.ts";
import { shopAt } from "../web/shop.ts";
import { EDGES, type Edge } from "./edges.ts";

/** `npm run pollers` sets 1,000. */
const POLLERS = Number(process.env["EDGE_POLLERS"] ?? 200);
const SECONDS = POLLERS > 200 ? 30 : 5;
/** Shorter than the page's 5 s, because there are fewer pollers. */
const POLL_INTERVAL_MS = POLLERS > 200 ? 5_000 : 1_000;
const PRODUCTS = ["mug", "pan", "pen"] as const;
/** Interval at which the stock of each product decreases by one. */
const CHANGE_INTERVAL_MS = 200;
const STOCK_AT_FIRST = 1_000;

const ORIGIN_REQUESTS_PER_SECOND_MAX = 2;
const STALE_MS_MAX = 3_000;

interface Origin extends AsyncDisposable {
  readonly port: number;
  /** Number of requests for a product. */
  readonly asked: Map<string, number>;
  /** Longest time from a request to the end of its response, ms. */
  readonly slowestMs: () => number;
}

/** A proxy in front of the service that counts requests. */
async function startOrigin(servicePort: number): Promise<Origin> {
  const asked = new Map<string, number>(PRODUCTS.map((productId) => [productId, 0]));
  const agent = new PlainAgent({ keepAlive: true });
  let slowestMs = 0;
  const server = createServer((received, answer) => {
    const { method, url = "", headers } = received;
    const beganAt = performance.now();
    const productId = PRODUCTS.find((id) => decodeURIComponent(url).includes(`"${id}"`));
    if (productId !== undefined) {
      asked.set(productId, (asked.get(productId) ?? 0) + 1);
    }
    const onward = forward({ port: servicePort, method, path: url, headers, agent }, (answered) => {
      answer.writeHead(answered.statusCode ?? 502, answered.headers);
      answered.pipe(answer);
      answered.on("end", () => {
        slowestMs = Math.max(slowestMs, performance.now() - beganAt);
      });
    });
    onward.on("error", () => answer.destroy());
    received.pipe(onward);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    asked,
    slowestMs: () => slowestMs,
    [Symbol.asyncDispose]: async () => {
      agent.destroy();
      server.closeAllConnections();
      server.close();
    },
  };
}

interface Polled {
  readonly etag: string;
  readonly available: number;
  readonly cache: string;
}

/** Requests the URL that the page polls, with If-None-Match if a response is known, like a browser. */
function poll(edge: Edge, agent: Agent, productId: string, known: Polled | undefined): Promise<Polled> {
  const message = encodeURIComponent(JSON.stringify({ productId }));
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        host: "127.0.0.1",
        port: edge.port,
        path: `/inventory.v1.StockService/GetStock?connect=v1&encoding=json&message=${message}`,
        headers: { host: "localhost", ...(known && { "if-none-match": known.etag }) },
        agent,
      },
      (answer) => {
        let body = "";
        answer.setEncoding("utf8");
        answer.on("data", (text: string) => {
          body += text;
        });
        answer.on("error", reject);
        answer.on("end", () => {
          const { etag = "", "x-cache": cache = "" } = answer.headers;
          if (answer.statusCode === 304 && known !== undefined) {
            resolve({ ...known, cache: String(cache) });
          } else if (answer.statusCode === 200) {
            resolve({ etag, cache: String(cache), available: JSON.parse(body).stock.available ?? 0 });
          } else {
            reject(new Error(`${answer.statusCode} ${body}`));
          }
        });
      },
    );
    sent.on("error", reject);
    sent.end();
  });
}

describe("nginx as a cache of reads", {
  skip: EDGES.nginx.program.missing || need("openssl").missing,
}, () => {
  it(`reduces ${POLLERS} pollers to under ${ORIGIN_REQUESTS_PER_SECOND_MAX} requests per second and product; no count is older than ${STALE_MS_MAX / 1_000} s`, async (t) => {
    // In a separate process, because a thousand pollers keep this one busy.
    await using app = await startAppProcess({ TRUSTED_PROXIES: "127.0.0.1" });
    const shop = shopAt(app.url);
    await shop.put(
      ...PRODUCTS.map((productId) => ({ productId, name: productId, declared: STOCK_AT_FIRST })),
    );
    await using origin = await startOrigin(app.port);
    await using edge = await EDGES.nginx.start({ upstreams: [origin.port] });
    const agent = new Agent({ keepAlive: true, ca: edge.certificate, servername: "localhost" });
    await until(async () => (await poll(edge, agent, "mug", undefined)).available > 0, "the edge answers");
    await until(async () => (await poll(edge, agent, "mug", undefined)).cache === "HIT", "the cache answers");
    origin.asked.set("mug", 0);

    // A count is outdated once the next change has been acknowledged.
    const overSince = new Map<string, number>();
    const over = new AbortController();
    const changing = PRODUCTS.map(async (productId) => {
      let available = STOCK_AT_FIRST;
      while (!over.signal.aborted) {
        await shop.adjust(productId, -1);
        overSince.set(`${productId} ${available}`, performance.now());
        available -= 1;
        await pause(CHANGE_INTERVAL_MS);
      }
      return available;
    });

    const beganAt = performance.now();
    let polls = 0;
    let oldestMs = 0;
    const byCache: Record<string, number> = {};
    const polling = Array.from({ length: POLLERS }, async (_, n) => {
      const productId = PRODUCTS[n % PRODUCTS.length] ?? PRODUCTS[0];
      let known: Polled | undefined;
      await pause(POLL_INTERVAL_MS * Math.random());
      while (performance.now() - beganAt < SECONDS * 1_000) {
        const askedAt = performance.now();
        const polled = await poll(edge, agent, productId, known);
        polls += 1;
        byCache[polled.cache] = (byCache[polled.cache] ?? 0) + 1;
        oldestMs = Math.max(
          oldestMs,
          askedAt - (overSince.get(`${productId} ${polled.available}`) ?? askedAt),
        );
        // Every other poller keeps responses like a browser.
        known = n % 2 === 0 ? polled : undefined;
        await pause(POLL_INTERVAL_MS * (0.75 + Math.random() / 2));
      }
    });
    await Promise.all(polling).finally(() => over.abort());
    const seconds = (performance.now() - beganAt) / 1_000;
    const left = await Promise.all(changing);
    const asked = [...origin.asked.values()];
    t.diagnostic(
      `${polls} polls in ${seconds.toFixed(1)} s, ${JSON.stringify(byCache)}; the service was asked ${asked.join(", ")} times, ` +
        `for ${origin.slowestMs().toFixed(0)} ms at most; the oldest answer was ${oldestMs.toFixed(0)} ms behind`,
    );

    for (const [productId, count] of origin.asked) {
      assert.ok(count < ORIGIN_REQUESTS_PER_SECOND_MAX * seconds, `${productId}: ${count} in ${seconds} s`);
      assert.ok(count > 1, `${productId} was not asked again`);
    }
    // Plus the time that a response of the service took until it was cached.
    const oldestMsMax = STALE_MS_MAX + origin.slowestMs();
    assert.ok(oldestMs < oldestMsMax, `an answer was ${oldestMs} ms behind, of ${oldestMsMax} at most`);
    assert.ok(oldestMs > 0, "nothing was kept at all");
    for (const [index, productId] of PRODUCTS.entries()) {
      await until(
        async () => (await poll(edge, agent, productId, undefined)).available === left[index],
        `the last count of ${productId} is there`,
      );
    }
    agent.destroy();
    shop.close();
  });

  it("caches no errors, and coalesces concurrent requests", async () => {
    await using app = await startTestApp({ TRUSTED_PROXIES: "127.0.0.1" });
    await using origin = await startOrigin(app.port);
    await using edge = await EDGES.nginx.start({ upstreams: [origin.port] });
    const agent = new Agent({ keepAlive: true, ca: edge.certificate, servername: "localhost" });
    await assert.rejects(poll(edge, agent, "pan", undefined), /404/);
    const shop = shopAt(app.url);
    await shop.put({ productId: "pan", name: "Pan", declared: 3 });
    assert.equal((await poll(edge, agent, "pan", undefined)).available, 3);
    assert.equal(origin.asked.get("pan"), 2);
    await shop.put({ productId: "pen", name: "Pen", declared: 3 });
    const beganAt = performance.now();
    const polled = await Promise.all(Array.from({ length: 50 }, () => poll(edge, agent, "pen", undefined)));
    assert.ok(polled.every(({ available }) => available === 3));
    // Once per second of their duration, and once more if the cache's time slot ends between them.
    const most = 1 + Math.ceil((performance.now() - beganAt) / 1_000);
    assert.ok((origin.asked.get("pen") ?? 0) <= most, `${origin.asked.get("pen")} of 50 came through`);
    agent.destroy();
    shop.close();
  });

  it("serves no outdated response to the first client after a pause", async () => {
    await using app = await startTestApp({ TRUSTED_PROXIES: "127.0.0.1" });
    await using edge = await EDGES.nginx.start({ upstreams: [app.port] });
    const agent = new Agent({ keepAlive: true, ca: edge.certificate, servername: "localhost" });
    const shop = shopAt(app.url);
    await shop.put({ productId: "pan", name: "Pan", declared: 3 });
    assert.equal((await poll(edge, agent, "pan", undefined)).available, 3);
    await shop.adjust("pan", -1);
    await pause(STALE_MS_MAX);
    assert.equal((await poll(edge, agent, "pan", undefined)).available, 2);
    agent.destroy();
    shop.close();
  });
});
