import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import { type DescMethod, fromJson, type JsonValue, toBinary } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { AUTH_TOKENS, bearer, TOKENS } from "./callers.ts";
import { type RawAnswer, type RawRequest, SEND } from "./raw-request.ts";

const PRODUCT = "mug-5c1e";
const productId = PRODUCT;
const lines = [{ productId, quantity: 1 }];
const ofHeld = { reservationId: "held" };

/** A request for each method that is not public. Sent in this order with a token, all of them succeed. */
const REQUESTS: readonly [DescMethod, JsonValue][] = [
  [ReservationService.method.reserve, { reservationId: "stolen", lines }],
  [ReservationService.method.extendReservation, { ...ofHeld, ttl: "7200s" }],
  [ReservationService.method.getReservation, ofHeld],
  [ReservationService.method.listReservations, {}],
  [ReservationService.method.commitReservation, ofHeld],
  [ReservationService.method.returnReservation, { ...ofHeld, returnId: "t1", lines }],
  [ReservationService.method.releaseReservation, { reservationId: "stolen" }],
  [SupplyService.method.putProduct, { productId, declared: 50 }],
  [SupplyService.method.countStock, { productId, count: 7, countId: "c1" }],
  [SupplyService.method.adjustStock, { productId, delta: 1, adjustmentId: "a1" }],
  [SupplyService.method.setSafetyStock, { productId, safety: 2 }],
  [SupplyService.method.getLedger, { productId }],
  [SupplyService.method.listChanges, { productId }],
  [SupplyService.method.listLedgers, {}],
  [SupplyService.method.batchPutProducts, { requests: [{ productId, declared: 51 }] }],
  [SupplyService.method.batchCountStock, { requests: [{ productId, count: 8, countId: "c2" }] }],
  [SupplyService.method.batchAdjustStock, { requests: [{ productId, delta: 1, adjustmentId: "a2" }] }],
  [SupplyService.method.putCollection, { collection: { collectionId: "mugs", name: "Mugs" } }],
  [SupplyService.method.deleteCollection, { collectionId: "mugs" }],
  [SupplyService.method.deleteProduct, { productId }],
];

/** A request in the forms in which it can be written. */
interface Written {
  /** `/inventory.v1.SupplyService/PutProduct` */
  readonly path: string;
  readonly method: DescMethod;
  readonly json: string;
  readonly proto: Buffer;
}

function write([method, request]: (typeof REQUESTS)[number]): Written {
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    method,
    json: JSON.stringify(request),
    proto: Buffer.from(toBinary(method.input, fromJson(method.input, request))),
  };
}

function envelope(data: string | Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(Buffer.byteLength(data), 1);
  return Buffer.concat([head, Buffer.from(data)]);
}

function queryOf(json: string): string {
  return `?connect=v1&encoding=json&message=${encodeURIComponent(json)}`;
}

/** Changes to a valid request by which an unauthenticated client may try to bypass access control. */
type Probe = (written: Written) => Partial<RawRequest>;
type Probes = Readonly<Record<string, Probe>>;

const STOCK = "/inventory.v1.StockService";
const PATHS: readonly ((path: string, name: string) => string)[] = [
  (path) => path,
  (path) => `/${path}`,
  (path) => `//localhost${path}`,
  (path) => path.slice(1),
  (path, name) => path.replace(`/${name}`, `//${name}`),
  (path, name) => path.replace(`/${name}`, `%2F${name}`),
  (path, name) => path.replace(`/${name}`, `\\${name}`),
  (path) => `/%2f${path.slice(1)}`,
  (path) => path.replace("S", "%53"),
  (path) => path.toLowerCase(),
  (path) => path.toUpperCase(),
  (path) => `${path}/`,
  (path) => `${path}?`,
  (path) => `${path}?access_token=${TOKENS.ops}`,
  (path) => `${path}#x`,
  (path) => `${path};x=1`,
  (path) => `${path}%00`,
  (path) => `${path}%20`,
  (path) => `/.${path}`,
  (path) => `/x/..${path}`,
  (path) => `${STOCK}/..${path}`,
  (path) => `${STOCK}/GetStock/%2e%2e/%2e%2e${path}`,
  (path) => `/healthz/..${path}`,
  (path) => `http://localhost${path}`,
  (path) => `http://127.0.0.1:1/..${path}`,
  (path) => path.replace("inventory.v1.", ""),
  (_path, name) => `${STOCK}/${name}`,
  (_path, name) => `/Inventory/${name}`,
];
const METHODS = ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "PROPFIND", "POSTS"];

const BODIES: Readonly<Record<string, (written: Written) => string | Buffer>> = {
  "application/json": ({ json }) => json,
  "application/json; charset=utf-8": ({ json }) => json,
  "APPLICATION/JSON": ({ json }) => json,
  " application/json ;x": ({ json }) => json,
  "application/json, application/grpc": ({ json }) => json,
  "application/x-www-form-urlencoded": ({ json }) => json,
  "text/plain": ({ json }) => json,
  "": ({ json }) => json,
  "application/proto": ({ proto }) => proto,
  "application/connect+json": ({ json }) => envelope(json),
  "application/connect+proto": ({ proto }) => envelope(proto),
  "application/grpc": ({ proto }) => envelope(proto),
  "application/grpc+proto": ({ proto }) => envelope(proto),
  "application/grpc+json": ({ json }) => envelope(json),
  "application/grpc; x=1": ({ proto }) => envelope(proto),
  "application/grpc-web": ({ proto }) => envelope(proto),
  "application/grpc-web+proto": ({ proto }) => envelope(proto),
  "application/grpc-web+json": ({ json }) => envelope(json),
  "application/grpc-web-text": ({ proto }) => envelope(proto).toString("base64"),
  "application/grpc-web-text+proto": ({ proto }) => envelope(proto).toString("base64"),
};

/** Headers besides those of a valid request. */
const HEADERS: readonly Readonly<Record<string, string | string[]>>[] = [
  ...["", " ", "Bearer", "Bearer ", "Basic b3BzOm9wcw==", TOKENS.ops, `Token ${TOKENS.ops}`].map(
    (authorization) => ({ authorization }),
  ),
  ...[
    `Bearer ${TOKENS.ops} x`,
    `Bearer ${TOKENS.ops},`,
    `Bearer "${TOKENS.ops}"`,
    `Bearer ${TOKENS.ops}%20`,
  ].map((authorization) => ({ authorization })),
  { authorization: ["", ""] },
  { authorization: ["Bearer nobody's", `Bearer ${TOKENS.ops}`] },
  { authorization: ["", `Bearer ${TOKENS.ops}`] },
  { "authorization-bin": Buffer.from(`Bearer ${TOKENS.ops}`).toString("base64") },
  { "x-authorization": `Bearer ${TOKENS.ops}`, "proxy-authorization": `Bearer ${TOKENS.ops}` },
  { "grpc-metadata-authorization": `Bearer ${TOKENS.ops}`, "trailer-authorization": `Bearer ${TOKENS.ops}` },
  { cookie: `authorization=Bearer ${TOKENS.ops}; token=${TOKENS.ops}` },
  { "x-forwarded-for": "127.0.0.1", forwarded: "for=127.0.0.1", "x-real-ip": "127.0.0.1" },
  { "x-forwarded-user": "ops-service", "x-forwarded-client-cert": "Subject=CN=ops-service", "x-role": "ops" },
  { expect: "100-continue" },
  { origin: "null", "access-control-request-method": "POST" },
];

const WEBSOCKET = { "sec-websocket-version": "13", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==" };

/** Changes that both versions of HTTP can carry. */
const PROBES: Probes = {
  ...Object.fromEntries(
    PATHS.map((pathOf): [string, Probe] => [
      `the path ${pathOf("/inventory.v1.Service/Method", "Method")}`,
      ({ path, method }) => ({ path: pathOf(path, method.name) }),
    ]),
  ),
  ...Object.fromEntries(
    METHODS.flatMap((method): [string, Probe][] => [
      [`${method} with a body`, () => ({ method })],
      [`${method} with a query`, ({ path, json }) => ({ method, path: path + queryOf(json), body: "" })],
      [
        `${method} instead of which it says POST`,
        () => ({ method, headers: { "x-http-method-override": "POST", "x-http-method": "POST" } }),
      ],
    ]),
  ),
  ...Object.fromEntries(
    Object.entries(BODIES).map(([type, bodyOf]): [string, Probe] => [
      `the content type "${type}"`,
      (written) => ({ headers: { "content-type": type }, body: bodyOf(written) }),
    ]),
  ),
  ...Object.fromEntries(
    HEADERS.map((headers): [string, Probe] => [
      `the headers ${JSON.stringify(headers)}`,
      () => ({ headers }),
    ]),
  ),
  "POST with a query": ({ path, json }) => ({ path: path + queryOf(json), body: "" }),
  "GET of protobuf in base64": ({ path, proto }) => ({
    method: "GET",
    path: `${path}?connect=v1&encoding=proto&base64=1&message=${proto.toString("base64url")}`,
    body: "",
  }),
  "a body in gzip": ({ json }) => ({
    headers: { "content-type": "application/json", "content-encoding": "gzip" },
    body: gzipSync(json),
  }),
  "a token in the trailers": () => ({ trailers: { authorization: `Bearer ${TOKENS.ops}` } }),
  "another path in the headers": ({ path }) => ({
    path: "/nothing",
    headers: { "x-original-url": path, "x-rewrite-url": path, "x-envoy-original-path": path },
  }),
};

/** Changes that HTTP/2 cannot express. */
const PROBES_OF_HTTP1: Probes = {
  "an upgrade to a WebSocket": ({ path, json }) => ({
    method: "GET",
    path: path + queryOf(json),
    headers: { connection: "Upgrade", upgrade: "websocket", ...WEBSOCKET },
    body: "",
  }),
  "a POST that asks for HTTP/2": () => ({
    headers: { connection: "Upgrade, HTTP2-Settings", upgrade: "h2c", "http2-settings": "AAMAAABkAAQAAP__" },
  }),
  "a body in chunks": () => ({ headers: { "transfer-encoding": "chunked" } }),
};

/** How each version of HTTP carries a valid request. */
const GOOD: Readonly<Record<keyof typeof SEND, (written: Written) => RawRequest>> = {
  "1.1": ({ path, json }) => ({
    method: "POST",
    path,
    headers: { "content-type": "application/json" },
    body: json,
  }),
  "2": ({ path, proto }) => ({
    method: "POST",
    path,
    headers: { "content-type": "application/grpc", te: "trailers" },
    body: envelope(proto),
  }),
};

/** Whether a client of any protocol would accept this as a successful response. */
function isGranted({ status, headers, body }: RawAnswer): boolean {
  const isBase64 = String(headers["content-type"]).startsWith("application/grpc-web-text");
  const text = isBase64 ? Buffer.from(body.toString(), "base64").toString("latin1") : body.toString("latin1");
  const grpcStatus = headers["grpc-status"] ?? /grpc-status: *(\d+)/.exec(text)?.[1] ?? "0";
  return status > 0 && status < 300 && grpcStatus === "0" && !text.includes('"error"');
}

for (const LANE of ["on", "off"]) {
  for (const version of ["1.1", "2"] as const) {
    describe(`a client without a token, over HTTP/${version} with LANE=${LANE}`, () => {
      const written = REQUESTS.map(write);
      let app: TestApp;
      const send = (one: Written, change: Partial<RawRequest>): Promise<RawAnswer> => {
        const good = GOOD[version](one);
        return SEND[version](app.port, {
          ...good,
          ...change,
          headers: { ...good.headers, ...change.headers },
        });
      };
      let supply: Client<typeof SupplyService>;
      let reservations: Client<typeof ReservationService>;
      const state = async () => ({
        ledger: (await supply.getLedger({ productId })).ledger,
        changes: (await supply.listChanges({ productId })).changes,
        reservations: (await reservations.listReservations({})).reservations,
      });

      before(async () => {
        app = await startTestApp({ AUTH_TOKENS, LANE });
        const transport = createGrpcTransport({ baseUrl: app.url, interceptors: [bearer(TOKENS.ops)] });
        supply = createClient(SupplyService, transport);
        reservations = createClient(ReservationService, transport);
        await supply.putProduct({ productId, declared: 5 });
        await reservations.reserve({ ...ofHeld, lines });
      });
      after(() => app?.stop());

      it("changes nothing and reads nothing, however malformed the request", async () => {
        const untouched = await state();
        assert.equal(untouched.changes.length, 2);
        const probes = { ...PROBES, ...(version === "1.1" && PROBES_OF_HTTP1) };
        for (const [what, change] of Object.entries(probes)) {
          const responses = await Promise.all(written.map((one) => send(one, change(one))));
          for (const [index, response] of responses.entries()) {
            const text = `${written[index]?.method.name}, ${what}: ${response.status} ${response.body}`;
            assert.ok(!isGranted(response), text);
            assert.ok(!response.body.includes(PRODUCT), text);
          }
        }
        assert.deepEqual(await state(), untouched);
      });

      it("gets 401 for GET of a read, and 405 for GET of a mutation", async () => {
        for (const one of written) {
          const path = one.path + queryOf(one.json);
          const response = await send(one, {
            method: "GET",
            path,
            headers: { "content-type": [] },
            body: "",
          });
          const isRead = one.method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
          assert.equal(response.status, isRead ? 401 : 405, one.method.name);
          assert.equal(response.headers["cache-control"], "no-store");
          assert.equal(response.headers["www-authenticate"], isRead ? "Bearer" : undefined);
        }
      });

      it("would succeed with each of these requests if it sent a token", async () => {
        const covered = new Set(REQUESTS.map(([method]) => method));
        assert.deepEqual(covered, new Set([...ReservationService.methods, ...SupplyService.methods]));
        const authorization = `Bearer ${TOKENS.ops}`;
        for (const one of written) {
          const response = await send(one, { headers: { authorization } });
          assert.ok(isGranted(response), `${one.method.name}: ${response.status} ${response.body}`);
        }
      });
    });
  }
}
