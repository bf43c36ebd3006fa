import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:http2";
import { after, before, describe, it } from "node:test";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { ReservationService, ReservationState } from "../../gen/inventory/v1/reservation_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { DEMO_CATALOG } from "../../server/demo/catalog.ts";
import { DEMO_PICTURES } from "../../server/demo/pictures.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { freePort } from "../support/free-port.ts";
import { until } from "../support/until.ts";

interface VisitorResponse {
  readonly status: number;
  readonly body: { readonly reason?: string; readonly message?: string; readonly expiresInMs?: number };
  readonly headers: Headers;
}

/** A product with many units and few sales. */
const NOTEBOOK = "demo-14";
const CORK_BOARD = "demo-18";

const randomId = (): string => crypto.randomUUID().replaceAll("-", "");

/** Sends a request as the page does. */
async function send(
  app: TestApp,
  action: string,
  body: object | string,
  headers: Record<string, string> = {},
): Promise<VisitorResponse> {
  const response = await fetch(`${app.url}/demo/${action}`, {
    method: "POST",
    headers: { "content-type": "application/json", "sec-fetch-site": "same-origin", ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
  const text = await response.text();
  assert.equal(response.headers.get("cache-control"), "no-store");
  return {
    status: response.status,
    body: text.startsWith("{") ? JSON.parse(text) : { message: text },
    headers: response.headers,
  };
}

/** A client of Orders, and the state of a reservation; `undefined` if there is none. */
function ordersOf(app: TestApp) {
  const transport = createConnectTransport({ httpVersion: "1.1", baseUrl: app.url });
  const reservations = createClient(ReservationService, transport);
  return {
    reservations,
    supply: createClient(SupplyService, transport),
    stateOf: (id: string) => stateOf(reservations, `demo-visitor-${id}`),
  };
}

async function stateOf(
  reservations: Client<typeof ReservationService>,
  reservationId: string,
): Promise<string | undefined> {
  try {
    const { reservation } = await reservations.getReservation({ reservationId });
    return Object.entries(ReservationState).find(([, state]) => state === reservation?.state)?.[0];
  } catch (error) {
    assert.equal(ConnectError.from(error).code, Code.NotFound);
    return undefined;
  }
}

const untilOpen = (app: TestApp): Promise<boolean> =>
  until(
    async () => (await send(app, "release", { reservationId: randomId() })).status === 410,
    "the demo has started",
  );

describe("what visitors of the demo may change", { concurrency: false }, () => {
  let app: TestApp;
  let orders: ReturnType<typeof ordersOf>;

  before(async () => {
    app = await startTestApp(
      { DEMO: "on", TRUSTED_PROXIES: "127.0.0.1" },
      { visitorLimits: { perVisitorMax: 3, totalMax: 40 } },
    );
    orders = ordersOf(app);
    await untilOpen(app);
  });
  after(() => app?.stop());

  let visitors = 0;
  /** The headers of a visitor of their own, as an edge sends them. */
  const newVisitor = (): Record<string, string> => ({ "x-forwarded-for": `192.0.2.${++visitors}` });

  it("reserves one unit for a minute, and commits or releases it; each is safe to repeat", async () => {
    const visitor = newVisitor();
    for (const [action, state] of [
      ["commit", "COMMITTED"],
      ["release", "RELEASED"],
    ] as const) {
      const reservationId = randomId();
      for (let time = 0; time < 2; time++) {
        const { status, body } = await send(app, "reserve", { reservationId, productId: NOTEBOOK }, visitor);
        assert.equal(status, 200, body.message ?? "");
        assert.ok(
          (body.expiresInMs ?? 0) > 50_000 && (body.expiresInMs ?? 0) <= 60_000,
          `${body.expiresInMs}`,
        );
      }
      assert.equal(await orders.stateOf(reservationId), "ACTIVE");
      const { reservation } = await orders.reservations.getReservation({
        reservationId: `demo-visitor-${reservationId}`,
      });
      assert.deepEqual(
        reservation?.lines.map(({ productId, quantity }) => [productId, quantity]),
        [[NOTEBOOK, 1]],
      );
      for (let time = 0; time < 2; time++) {
        assert.equal((await send(app, action, { reservationId }, visitor)).status, 200);
      }
      assert.equal(await orders.stateOf(reservationId), state);
      const other = action === "commit" ? "release" : "commit";
      const { status, body } = await send(app, other, { reservationId }, visitor);
      assert.deepEqual([status, body.reason], [410, "ended"]);
      assert.equal(await orders.stateOf(reservationId), state);
    }
  });

  it("refuses requests that do not come from the page itself", async () => {
    const port = new URL(app.url).port;
    const foreign: Record<string, string>[] = [
      { "sec-fetch-site": "cross-site", origin: "https://evil.example" },
      { "sec-fetch-site": "same-site", origin: `http://127.0.0.1:${Number(port) + 1}` },
      { "sec-fetch-site": "none" },
      { "sec-fetch-site": "cross-site", origin: app.url },
    ];
    for (const headers of foreign) {
      const reservationId = randomId();
      const { status, body } = await send(app, "reserve", { reservationId, productId: NOTEBOOK }, headers);
      assert.deepEqual([status, body.reason], [403, "cross_origin"], JSON.stringify(headers));
      assert.match(body.message ?? "", new RegExp(`Sec-Fetch-Site is "${headers["sec-fetch-site"]}"`));
      assert.equal(await orders.stateOf(reservationId), undefined);
    }
    // Browsers leave Sec-Fetch-Site out on plain HTTP, where Origin decides.
    for (const [origin, expected] of [
      [undefined, 403],
      ["null", 403],
      ["https://evil.example", 403],
      [`http://127.0.0.1:${Number(port) + 1}`, 403],
      [app.url, 410],
    ] as const) {
      const response = await fetch(`${app.url}/demo/release`, {
        method: "POST",
        headers: { "content-type": "application/json", ...(origin && { origin }) },
        body: JSON.stringify({ reservationId: randomId() }),
      });
      assert.equal(response.status, expected, `Origin: ${origin}`);
      assert.equal(response.headers.get("access-control-allow-origin"), null);
    }
    const preflight = await fetch(`${app.url}/demo/reserve`, {
      method: "OPTIONS",
      headers: { origin: "https://evil.example", "access-control-request-method": "POST" },
    });
    assert.equal(preflight.headers.get("access-control-allow-origin"), null);
    assert.equal((await fetch(`${app.url}/demo/reserve`)).status, 405);
  });

  it("accepts the page over HTTP/2, whose authority takes the place of Host", async () => {
    const session = connect(app.url);
    try {
      for (const [origin, expected] of [
        [app.url, 410],
        ["https://evil.example", 403],
      ] as const) {
        const stream = session.request({
          ":method": "POST",
          ":path": "/demo/release",
          "content-type": "application/json",
          origin,
        });
        stream.end(JSON.stringify({ reservationId: randomId() })).resume();
        const [headers] = await once(stream, "response");
        assert.equal(headers[":status"], expected, origin);
      }
    } finally {
      session.close();
    }
  });

  it("refuses invalid requests, and names field and value", async () => {
    const id = randomId();
    for (const [body, status, message] of [
      ["not json", 400, /The body is not JSON: "not json"/],
      ["null", 400, /reservationId is ""/],
      [{ reservationId: 7, productId: NOTEBOOK }, 400, /reservationId is ""/],
      [
        { reservationId: "order-1", productId: NOTEBOOK },
        400,
        /reservationId is "order-1"; give 32 random hexadecimal digits/,
      ],
      [{ reservationId: `F${id.slice(1)}`, productId: NOTEBOOK }, 400, /lower case/],
      [{ reservationId: id, productId: "sku-1" }, 404, /productId is "sku-1"; only products of the demo/],
      [{ reservationId: id }, 404, /productId is ""/],
      [{ reservationId: id, productId: "x".repeat(2_000) }, 413, /more than 1024 bytes/],
    ] as const) {
      const response = await send(app, "reserve", body);
      assert.equal(response.status, status, JSON.stringify(body));
      assert.match(response.body.message ?? "", message);
    }
    const text = await send(app, "reserve", "{}", { "content-type": "text/plain" });
    assert.equal(text.status, 415);
    assert.match(text.body.message ?? "", /Content-Type is "text\/plain"; send application\/json/);
    assert.equal(await orders.stateOf(id), undefined);
    assert.equal((await send(app, "adjust", {})).status, 404);
  });

  it("reaches no reservation that was not made here", async () => {
    const reservationId = randomId();
    const foreign = `demo-visitor-${reservationId}`;
    await orders.reservations.reserve({
      reservationId: foreign,
      lines: [{ productId: NOTEBOOK, quantity: 1 }],
    });
    for (const action of ["commit", "release"]) {
      const { status, body } = await send(app, action, { reservationId });
      assert.deepEqual([status, body.reason], [410, "ended"]);
    }
    assert.equal(await orders.stateOf(reservationId), "ACTIVE");
    await orders.reservations.releaseReservation({ reservationId: foreign });
  });

  it("refuses another product under the same ID", async () => {
    const visitor = newVisitor();
    const reservationId = randomId();
    assert.equal((await send(app, "reserve", { reservationId, productId: NOTEBOOK }, visitor)).status, 200);
    const { status, body } = await send(app, "reserve", { reservationId, productId: "demo-13" }, visitor);
    assert.deepEqual([status, body.reason], [409, "reused"]);
  });

  it("refuses what is sold out, and the refusal does not count", async () => {
    const visitor = newVisitor();
    await orders.supply.setSafetyStock({ productId: CORK_BOARD, safety: 1_000_000 });
    for (let time = 0; time < 5; time++) {
      const reservationId = randomId();
      const { status, body } = await send(app, "reserve", { reservationId, productId: CORK_BOARD }, visitor);
      assert.deepEqual([status, body.reason], [409, "sold_out"]);
    }
  });

  it("limits the reservations of a visitor, and of all visitors", async () => {
    const visitor = newVisitor();
    const reserve = (headers: Record<string, string>) =>
      send(app, "reserve", { reservationId: randomId(), productId: NOTEBOOK }, headers);
    for (let time = 0; time < 3; time++) {
      assert.equal((await reserve(visitor)).status, 200);
    }
    const refused = await reserve(visitor);
    assert.deepEqual([refused.status, refused.body.reason], [429, "limited"]);
    assert.equal(refused.body.message, "A visitor may reserve 3 times in 60 s");
    const retryAfter = Number(refused.headers.get("retry-after"));
    assert.ok(retryAfter > 0 && retryAfter <= 60, `retry-after: ${retryAfter}`);
    assert.equal((await reserve(newVisitor())).status, 200, "another visitor has a limit of their own");
    let made = 0;
    let total: VisitorResponse;
    do {
      total = await reserve(newVisitor());
      made += total.status === 200 ? 1 : 0;
    } while (total.status === 200 && made < 100);
    assert.deepEqual(
      [total.status, total.body.message],
      [429, "All visitors together may reserve 40 times in 60 s"],
    );
  });

  it("has a picture for every product", () => {
    for (const { productId, details } of DEMO_CATALOG) {
      assert.ok(DEMO_PICTURES[productId], `${details.name} has no picture`);
    }
  });
});

describe("a visitor's reservation that ends", () => {
  it("expires by itself, and a late purchase does not revive it", async () => {
    await using app = await startTestApp({ DEMO: "on" }, { visitorLimits: { holdMs: 1_000 } });
    const orders = ordersOf(app);
    await untilOpen(app);
    const reservationId = randomId();
    const { body } = await send(app, "reserve", { reservationId, productId: NOTEBOOK });
    assert.ok((body.expiresInMs ?? 0) <= 1_000, JSON.stringify(body));
    await until(async () => (await orders.stateOf(reservationId)) === "EXPIRED", "the reservation expires");
    const late = await send(app, "commit", { reservationId });
    assert.deepEqual([late.status, late.body.reason], [410, "ended"]);
    assert.equal(await orders.stateOf(reservationId), "EXPIRED");
  });
});

describe("the demo's endpoint where it is off", () => {
  it("does not exist without the demo, with DEMO_RESERVE=off, and with Redis", async () => {
    for (const environment of [
      { DEMO: "off" },
      { DEMO: "on", DEMO_RESERVE: "off" },
      { DEMO: "on", REDIS_URL: `redis://127.0.0.1:${await freePort()}` },
    ]) {
      await using app = await startTestApp(environment);
      for (const action of ["reserve", "commit", "release"]) {
        const { status, body } = await send(app, action, {
          reservationId: randomId(),
          productId: NOTEBOOK,
        });
        assert.equal(status, 404, JSON.stringify(environment));
        assert.match(body.message ?? "", /There is no method/);
      }
      assert.doesNotMatch(await (await fetch(app.url)).text(), /Reserve 1/);
    }
  });
});
