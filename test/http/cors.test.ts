import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { startTestApp, type TestApp } from "../support/app.ts";
import { SMALL_SHOP, shopAt } from "../web/shop.ts";

const ALLOWED = "https://shop.example";
const OTHER_ORIGINS = [
  "https://other.example",
  "http://shop.example",
  "https://shop.example:8443",
  "https://shop.example.evil.example",
  "null",
];
const STOCK = "/inventory.v1.StockService";
const GET = `${STOCK}/GetStock?connect=v1&encoding=json&message=%7B%22productId%22%3A%22mug%22%7D`;

/** The items of a list header, in lower case. */
function listOf(headers: Headers, name: string): Set<string> {
  const items = (headers.get(name) ?? "").toLowerCase().split(",");
  return new Set(items.map((item) => item.trim()).filter((item) => item !== ""));
}

for (const LANE of ["on", "off"]) {
  describe(`cross-origin requests, LANE=${LANE}`, () => {
    let app: TestApp;
    before(async () => {
      app = await startTestApp({ LANE, EMBED_ORIGINS: ALLOWED });
      const shop = shopAt(app.url);
      await shop.put(...SMALL_SHOP);
      shop.close();
    });
    after(() => app?.stop());

    const send = (path: string, origin: string, init: RequestInit = {}): Promise<Response> =>
      fetch(`${app.url}${path}`, {
        ...init,
        headers: { origin, ...(init.headers as Record<string, string>) },
      });
    const preflight = (path: string, origin: string): Promise<Response> =>
      send(path, origin, {
        method: "OPTIONS",
        headers: {
          "access-control-request-method": "POST",
          "access-control-request-headers": "content-type,x-grpc-web,x-user-agent,connect-protocol-version",
        },
      });

    it("get preflight responses that browsers may cache for two hours", async () => {
      for (const method of ["GetStock", "WatchStock"]) {
        const { status, headers } = await preflight(`${STOCK}/${method}`, ALLOWED);
        assert.equal(status, 204);
        assert.equal(headers.get("access-control-allow-origin"), ALLOWED);
        assert.equal(headers.get("access-control-max-age"), "7200");
        assert.equal(headers.get("access-control-allow-credentials"), null);
        assert.equal(headers.get("vary"), "origin");
        assert.deepEqual(listOf(headers, "access-control-allow-methods"), new Set(["post", "get"]));
        const allowed = listOf(headers, "access-control-allow-headers");
        for (const name of ["content-type", "x-grpc-web", "x-user-agent", "grpc-timeout"]) {
          assert.ok(allowed.has(name), name);
        }
        for (const name of ["connect-protocol-version", "connect-timeout-ms"]) {
          assert.ok(allowed.has(name), name);
        }
        assert.ok(!allowed.has("authorization"), "authorization is not an allowed header");
      }
    });

    it("get readable responses and errors of every protocol, with the status headers exposed", async () => {
      const grpcWeb = { "content-type": "application/grpc-web+proto", "x-grpc-web": "1" };
      const empty = new Uint8Array(5);
      const requests: readonly [what: string, Promise<Response>, status: number][] = [
        ["a GET", send(GET, ALLOWED), 200],
        ["an error of GET", send(GET.replace("mug", "nothing"), ALLOWED), 404],
        [
          "JSON",
          send(`${STOCK}/GetStock`, ALLOWED, {
            method: "POST",
            headers: { "content-type": "application/json" },
            body: '{"productId":"mug"}',
          }),
          200,
        ],
        [
          "an error of gRPC-Web",
          send(`${STOCK}/GetStock`, ALLOWED, { method: "POST", headers: grpcWeb, body: empty }),
          200,
        ],
        [
          "a watch",
          send(`${STOCK}/WatchStock`, ALLOWED, { method: "POST", headers: grpcWeb, body: empty }),
          200,
        ],
        [
          "an unsupported content type",
          send(`${STOCK}/GetStock`, ALLOWED, { method: "POST", body: "x" }),
          415,
        ],
      ];
      for (const [what, request, status] of requests) {
        const answer = await request;
        assert.equal(answer.status, status, what);
        assert.equal(answer.headers.get("access-control-allow-origin"), ALLOWED, what);
        assert.ok(listOf(answer.headers, "vary").has("origin"), what);
        const exposed = listOf(answer.headers, "access-control-expose-headers");
        for (const name of [
          "grpc-status",
          "grpc-message",
          "grpc-status-details-bin",
          "stock-stale",
          "date",
        ]) {
          assert.ok(exposed.has(name), `${what} does not expose ${name}`);
        }
        await answer.body?.cancel();
      }
    });

    it("are distinguished by scheme, host and port", async () => {
      for (const origin of OTHER_ORIGINS) {
        const refused = await preflight(`${STOCK}/GetStock`, origin);
        assert.equal(refused.status, 403, origin);
        assert.ok((await refused.clone().text()).includes(`"${origin}"`), "the refusal names the origin");
        for (const answer of [refused, await send(GET, origin)]) {
          assert.equal(answer.headers.get("access-control-allow-origin"), null, origin);
          assert.equal(answer.headers.get("access-control-allow-methods"), null, origin);
          assert.ok(listOf(answer.headers, "vary").has("origin"), origin);
          await answer.body?.cancel();
        }
      }
    });

    it("get no access to anything but shoppers' reads", async () => {
      for (const path of [
        "/inventory.v1.SupplyService/PutProduct",
        "/inventory.v1.ReservationService/Reserve",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/readyz",
        "/",
      ]) {
        const answer = await preflight(path, ALLOWED);
        assert.equal(answer.headers.get("access-control-allow-origin"), null, path);
        await answer.body?.cancel();
      }
    });
  });
}

describe("cross-origin requests without EMBED_ORIGINS", () => {
  it("get no CORS headers, and no Vary: Origin", async () => {
    await using app = await startTestApp();
    const answer = await fetch(`${app.url}${GET}`, { headers: { origin: ALLOWED } });
    assert.equal(answer.headers.get("access-control-allow-origin"), null);
    assert.notEqual(answer.headers.get("vary"), "origin");
    await answer.body?.cancel();
  });
});
