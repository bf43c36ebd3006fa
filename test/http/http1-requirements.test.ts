import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { startTestApp, type TestApp } from "../support/app.ts";
import { SMALL_SHOP, shopAt } from "../web/shop.ts";
import { exchange, exchangeOpen, type RawResponse } from "./raw-http1.ts";

const GET_STOCK = "/inventory.v1.StockService/GetStock";
const PUT_PRODUCT = "/inventory.v1.SupplyService/PutProduct";
const JSON_MUG = '{"productId":"mug"}';
const CHUNKED_MUG = `${JSON_MUG.length.toString(16)}\r\n${JSON_MUG}\r\n0\r\n\r\n`;

/** A request that asks the server to close, so that its end is known. */
function get(target: string, ...fields: string[]): string {
  return request(`GET ${target} HTTP/1.1`, "Host: shop.example", ...fields);
}

function request(line: string, ...fields: string[]): string {
  return `${[line, ...fields, "Connection: close"].join("\r\n")}\r\n\r\n`;
}

/** A GetStock in JSON with a Content-Length, or with the framing that `fields` and `body` have. */
function post(fields: readonly string[] = [`Content-Length: ${JSON_MUG.length}`], body = JSON_MUG): string {
  const head = ["Host: shop.example", "Content-Type: application/json", ...fields];
  return `${request(`POST ${GET_STOCK} HTTP/1.1`, ...head)}${body}`;
}

const RESERVE_BODY = JSON.stringify({
  reservationId: "pipelined",
  lines: [{ productId: "unknown", quantity: 1 }],
});
const RESERVE_UNKNOWN = post([`Content-Length: ${RESERVE_BODY.length}`], RESERVE_BODY).replace(
  GET_STOCK,
  "/inventory.v1.ReservationService/Reserve",
);

function keptAlive(bytes: string): string {
  return bytes.replace("Connection: close\r\n", "");
}

const CHUNKED = "Transfer-Encoding: chunked";

interface Requirement {
  /** Section and rule. */
  readonly rule: string;
  readonly bytes: string;
  readonly status: number;
  /** What the body says. */
  readonly body?: RegExp;
  readonly headers?: Readonly<Record<string, RegExp>>;
}

/** What RFC 9112 (messages) and RFC 9110 (semantics) demand of an origin server, by section. */
const REQUIREMENTS: readonly Requirement[] = [
  // Message parsing.
  {
    rule: "9112 2.2: empty lines before the request line are ignored",
    bytes: `\r\n\r\n${get("/healthz")}`,
    status: 200,
  },
  {
    rule: "9112 2.2: whitespace before the first field line is refused",
    bytes: "GET /healthz HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n",
    status: 400,
  },
  { rule: "9112 2.2: a bare CR is refused", bytes: get("/healthz", "X: a\rb"), status: 400 },
  {
    rule: "9112 2.2: what is not HTTP is refused",
    bytes: "no HTTP at all\r\n\r\n",
    status: 400,
    body: /could not be parsed/,
  },
  {
    rule: "9112 5: no whitespace between field name and colon",
    bytes: get("/healthz", "X : a"),
    status: 400,
  },
  { rule: "9112 5.2: a folded field line is refused", bytes: get("/healthz", "X: a", " b"), status: 400 },
  { rule: "9110 5.5: NUL in a field value is refused", bytes: get("/healthz", "X: a\0b"), status: 400 },
  {
    rule: "9112 2.2: lines that end in LF alone are refused",
    bytes: "GET /healthz HTTP/1.1\nHost: a\n\n",
    status: 400,
  },
  // Versions.
  {
    rule: "9110 15.6.6: HTTP/2.0 in a request line",
    bytes: request("GET /healthz HTTP/2.0", "Host: a"),
    status: 505,
    body: /HTTP\/2\.0/,
  },
  {
    rule: "9110 15.6.6: HTTP/3.0 in a request line",
    bytes: request("GET /healthz HTTP/3.0", "Host: a"),
    status: 505,
    body: /HTTP\/3\.0/,
  },
  {
    rule: "9110 15.6.6: HTTP/0.9 in a request line",
    bytes: request("GET /healthz HTTP/0.9", "Host: a"),
    status: 505,
    body: /HTTP\/0\.9/,
  },
  // Methods.
  {
    rule: "9110 9.1: an unknown method",
    bytes: request("BREW / HTTP/1.1", "Host: a"),
    status: 501,
    body: /"BREW"/,
  },
  {
    rule: "9110 9.1: methods are case-sensitive",
    bytes: request("get / HTTP/1.1", "Host: a"),
    status: 501,
    body: /"get"/,
  },
  {
    rule: "9110 9.3.6: CONNECT to a server that is no proxy",
    bytes: request("CONNECT a:1 HTTP/1.1", "Host: a:1"),
    status: 405,
    body: /CONNECT/,
    headers: { allow: /GET/ },
  },
  {
    rule: "9110 9.3.7: OPTIONS *",
    bytes: request("OPTIONS * HTTP/1.1", "Host: a"),
    status: 204,
    headers: { allow: /GET, HEAD, POST/ },
  },
  {
    rule: "9110 9.3.7: OPTIONS for the server in absolute-form",
    bytes: request("OPTIONS http://a HTTP/1.1", "Host: a"),
    status: 204,
    headers: { allow: /GET, HEAD, POST/ },
  },
  ...["/", "/healthz", "/readyz", "/embed.js"].flatMap((path): Requirement[] => [
    ...["POST", "PUT", "DELETE", "PATCH", "TRACE"].map((method) => ({
      rule: `9110 15.5.6: ${method} ${path} has Allow`,
      bytes: request(`${method} ${path} HTTP/1.1`, "Host: a", "Content-Length: 0"),
      status: 405,
      body: new RegExp(`"${method}" is not allowed`),
      headers: { allow: /^GET, HEAD, OPTIONS$/ },
    })),
    {
      rule: `9110 9.3.7: OPTIONS ${path}`,
      bytes: request(`OPTIONS ${path} HTTP/1.1`, "Host: a"),
      status: 204,
      headers: { allow: /^GET, HEAD, OPTIONS$/ },
    },
  ]),
  ...["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS"].map((method) => ({
    rule: `9110 15.5.6: ${method} of a read has Allow`,
    bytes: request(`${method} ${GET_STOCK} HTTP/1.1`, "Host: a", "Content-Length: 0"),
    status: 405,
    body: new RegExp(`"${method}" is not allowed`),
    headers: { allow: /^GET, HEAD, POST$/ },
  })),
  {
    rule: "9110 15.5.6: GET of a mutation has Allow",
    bytes: get(`${PUT_PRODUCT}?connect=v1&encoding=json&message=%7B%7D`),
    status: 405,
    body: /"code":"unknown".*"GET\\" is not allowed/,
    headers: { allow: /^POST$/, "content-type": /^application\/json$/ },
  },
  // Request targets.
  {
    rule: "9112 3.2.2: absolute-form",
    bytes: request("GET http://shop.example/healthz HTTP/1.1", "Host: shop.example"),
    status: 200,
  },
  {
    rule: "9112 3.2.2: absolute-form with an empty path",
    bytes: request("GET http://shop.example HTTP/1.1", "Host: a"),
    status: 200,
  },
  {
    rule: "9112 3.2.2: absolute-form with a query and no path",
    bytes: request("GET http://shop.example?q=mug HTTP/1.1", "Host: a"),
    status: 200,
  },
  {
    rule: "9112 3.2.2: absolute-form in capitals, with a port",
    bytes: request("GET HTTP://SHOP.EXAMPLE:8080/healthz HTTP/1.1", "Host: a"),
    status: 200,
  },
  {
    rule: "9112 3.2.2: absolute-form of a call",
    bytes: post().replace(GET_STOCK, `http://shop.example${GET_STOCK}`),
    status: 200,
    body: /"productId":"mug"/,
  },
  {
    rule: "9112 3.2.2: absolute-form of a cacheable read",
    bytes: get(
      `http://shop.example${GET_STOCK}?connect=v1&encoding=json&message=%7B%22productId%22%3A%22mug%22%7D`,
    ),
    status: 200,
    body: /"productId":"mug"/,
  },
  {
    rule: "9110 4.2.1: a target with an empty host",
    bytes: request("GET http:///healthz HTTP/1.1", "Host: a"),
    status: 400,
    body: /./,
  },
  {
    rule: "9110 4.2.4: a target with userinfo",
    bytes: request("GET http://user:secret@a/healthz HTTP/1.1", "Host: a"),
    status: 400,
    body: /authority/,
  },
  {
    rule: "9110 7.4: an https target without TLS",
    bytes: request("GET https://shop.example/healthz HTTP/1.1", "Host: shop.example"),
    status: 421,
    body: /not secured/,
  },
  {
    rule: "9110 7.4: a target of another scheme",
    bytes: request("GET ftp://a/healthz HTTP/1.1", "Host: a"),
    status: 400,
    body: /"ftp"/,
  },
  {
    rule: "9112 3.2.4: * with another method",
    bytes: request("GET * HTTP/1.1", "Host: a"),
    status: 400,
    body: /"\*"/,
  },
  { rule: "9112 3.2: a relative target", bytes: request("GET healthz HTTP/1.1", "Host: a"), status: 400 },
  {
    rule: "9112 3: a request target that is too long",
    bytes: get(`/${"a".repeat(20_000)}`),
    status: 414,
    body: /target is too long/,
  },
  {
    rule: "6585 5: header fields that are too long",
    bytes: get("/", `X: ${"a".repeat(20_000)}`),
    status: 431,
    body: /too many or too long/,
  },
  {
    rule: "6585 5: too many header fields",
    bytes: get("/", ...Array.from({ length: 101 }, (_, index) => `X-${index}: a`)),
    status: 431,
    body: /at most 100/,
  },
  // Host.
  { rule: "9112 3.2: no Host", bytes: request("GET /healthz HTTP/1.1"), status: 400, body: /no Host/ },
  {
    rule: "9112 3.2: two Host fields",
    bytes: request("GET /healthz HTTP/1.1", "Host: a", "Host: b"),
    status: 400,
    body: /2 Host fields/,
  },
  {
    rule: "9112 3.2: the same Host twice",
    bytes: request("GET /healthz HTTP/1.1", "Host: a", "host: a"),
    status: 400,
    body: /2 Host fields/,
  },
  {
    rule: "9112 3.2: two Host fields beside an absolute-form target",
    bytes: request("GET http://a/healthz HTTP/1.1", "Host: a", "Host: a"),
    status: 400,
  },
  ...["a b", "a/b", "a@b", "[", "[::1", "a:b:c", "a:99999", "http://a", "a,b?", ""].map((host) => ({
    rule: `9112 3.2: Host: ${host}`,
    bytes: request("GET /healthz HTTP/1.1", `Host: ${host}`),
    status: 400,
    body: /must be a host name or an address/,
  })),
  ...["a", "a:8080", "a:", "127.0.0.1", "[::1]:8080", "a_b.example", "xn--bcher-kva.example"].map((host) => ({
    rule: `9110 7.2: Host: ${host}`,
    bytes: request("GET /healthz HTTP/1.1", `Host: ${host}`),
    status: 200,
  })),
  { rule: "9112 3.2: HTTP/1.0 needs no Host", bytes: "GET /healthz HTTP/1.0\r\n\r\n", status: 200 },
  {
    rule: "9112 3.3: a call over HTTP/1.0 without a Host",
    bytes: `POST ${GET_STOCK} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: ${JSON_MUG.length}\r\n\r\n${JSON_MUG}`,
    status: 200,
    body: /"productId":"mug"/,
  },
  // Framing.
  {
    rule: "9112 6.1: an unknown transfer coding",
    bytes: post(["Transfer-Encoding: gzip, chunked"], CHUNKED_MUG),
    status: 501,
    body: /"unimplemented".*gzip, chunked/,
  },
  {
    rule: "9112 6.1: an unknown transfer coding in a line of its own",
    bytes: post(["Transfer-Encoding: foo", CHUNKED], CHUNKED_MUG),
    status: 501,
    body: /foo/,
  },
  {
    rule: "9112 6.3: chunked is not the last coding",
    bytes: post(["Transfer-Encoding: chunked, gzip"], CHUNKED_MUG),
    status: 400,
    body: /./,
  },
  {
    rule: "9112 6.3: only another coding",
    bytes: post(["Transfer-Encoding: identity"], ""),
    status: 400,
    body: /identity/,
  },
  {
    rule: "9112 6.1: chunked twice",
    bytes: post(["Transfer-Encoding: chunked, chunked"], CHUNKED_MUG),
    status: 400,
    body: /./,
  },
  {
    rule: "9112 7: transfer codings are case-insensitive",
    bytes: post(["Transfer-Encoding: CHUNKED"], CHUNKED_MUG),
    status: 200,
  },
  {
    rule: "9112 7.1.1: chunk extensions are ignored",
    bytes: post([CHUNKED], CHUNKED_MUG.replace("\r\n", ';a=b;c="d"\r\n')),
    status: 200,
  },
  {
    rule: "9112 7.1.2: trailer fields are ignored",
    bytes: post([CHUNKED], CHUNKED_MUG.replace("0\r\n", "0\r\nX: y\r\n")),
    status: 200,
  },
  {
    rule: "9112 7.1: a chunk size that overflows",
    bytes: post([CHUNKED], "fffffffffffffffff\r\n"),
    status: 400,
    body: /./,
  },
  {
    rule: "9112 7.1: a chunk size that is no number",
    bytes: post([CHUNKED], "zz\r\n"),
    status: 400,
    body: /./,
  },
  {
    rule: "9112 6.1: Transfer-Encoding in HTTP/1.0",
    bytes: post([CHUNKED], CHUNKED_MUG).replace("HTTP/1.1", "HTTP/1.0"),
    status: 400,
    body: /HTTP\/1\.0/,
  },
  {
    rule: "9112 6.1: both Transfer-Encoding and Content-Length",
    bytes: post([CHUNKED, "Content-Length: 3"], CHUNKED_MUG),
    status: 400,
    body: /./,
  },
  {
    rule: "9112 6.3: two lengths",
    bytes: post(["Content-Length: 19", "Content-Length: 20"]),
    status: 400,
    body: /./,
  },
  {
    rule: "9110 8.6: a length that is no number",
    bytes: post(["Content-Length: +19"]),
    status: 400,
    body: /./,
  },
  { rule: "9110 8.6: a list of lengths", bytes: post(["Content-Length: 19, 20"]), status: 400, body: /./ },
  // Expectations.
  {
    rule: "9110 10.1.1: an unknown expectation",
    bytes: get("/healthz", "Expect: sorcery"),
    status: 417,
    body: /"sorcery"/,
  },
  {
    rule: "9110 10.1.1: 100-continue is case-insensitive",
    bytes: post([`Content-Length: ${JSON_MUG.length}`, "Expect: 100-Continue"]),
    status: 200,
  },
  {
    rule: "9110 10.1.1: an expectation in HTTP/1.0 is ignored",
    bytes: "GET /healthz HTTP/1.0\r\nExpect: 100-continue\r\n\r\n",
    status: 200,
  },
  // Fields that a server may ignore.
  {
    rule: "9110 7.8: Upgrade to a protocol that the server does not speak",
    bytes: get("/healthz", "Upgrade: foo/1").replace("Connection: close", "Connection: close, upgrade"),
    status: 200,
  },
  { rule: "9110 14.2: Range is optional", bytes: get("/healthz", "Range: bytes=0-1"), status: 200 },
  // Preconditions.
  {
    rule: "9110 13.1.1: If-Match with another tag",
    bytes: get("/", 'If-Match: "x"'),
    status: 412,
    body: /If-Match/,
  },
  { rule: "9110 13.1.1: If-Match: *", bytes: get("/", "If-Match: *"), status: 200 },
  {
    rule: "9110 13.1.2: If-None-Match: *",
    bytes: get("/", "If-None-Match: *"),
    status: 304,
    headers: { etag: /^"/ },
  },
  {
    rule: "9110 13.2.1: no precondition where the response is no success",
    bytes: get("/nothing", 'If-Match: "x"'),
    status: 404,
  },
  {
    rule: "9110 13.1.1: If-Match of a cacheable read",
    bytes: get(
      `${GET_STOCK}?connect=v1&encoding=json&message=%7B%22productId%22%3A%22mug%22%7D`,
      'If-Match: "x"',
    ),
    status: 412,
    body: /"failed_precondition".*If-Match/,
  },
  {
    rule: "9110 13.1.2: If-None-Match: * of a cacheable read",
    bytes: get(
      `${GET_STOCK}?connect=v1&encoding=json&message=%7B%22productId%22%3A%22mug%22%7D`,
      "If-None-Match: *",
    ),
    status: 304,
  },
];

for (const LANE of ["on", "off"]) {
  describe(`HTTP/1.1 requirements, LANE=${LANE}`, { concurrency: true }, () => {
    let app: TestApp;
    before(async () => {
      app = await startTestApp({ LANE });
      const shop = shopAt(app.url);
      await shop.put(...SMALL_SHOP);
      shop.close();
    });
    after(() => app?.stop());

    for (const { rule, bytes, status, body, headers = {} } of REQUIREMENTS) {
      it(`${rule}: ${status}`, async () => {
        const [response, ...more] = await exchange(app.port, bytes);
        assert.deepEqual([response?.status, more], [status, []], response?.body ?? "no response");
        assertComplete(response);
        if (body !== undefined) assert.match(response.body, body);
        for (const [name, value] of Object.entries(headers))
          assert.match(response.headers[name] ?? "", value);
      });
    }

    it("9112 9.3.2: pipelined requests get their responses in order", async () => {
      const paths = ["/healthz", "/nothing", GET_STOCK, "/readyz", "/healthz"];
      const pipelined = paths.map((path) => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`).join("");
      const responses = await exchangeOpen(app.port, pipelined, paths.length);
      assert.deepEqual(
        responses.map(({ status }) => status),
        [200, 404, 415, 200, 200],
      );
    });

    for (const [name, first, status] of [
      ["answered from memory", post(), 200],
      ["answered by the store", RESERVE_UNKNOWN, 404],
    ] as const) {
      it(`9112 9.3.2: a request ${name} before a malformed one gets its own response`, async () => {
        const responses = await exchange(app.port, `${keptAlive(first)}GARBAGE\r\n\r\n`);
        assert.deepEqual(
          responses.map((response) => [response.status, response.headers["connection"]]),
          [[status, "close"]],
        );
      });
    }

    it("9112 9.6: the connection closes after a request with Connection: close, and the next one is not read", async () => {
      const responses = await exchange(app.port, get("/healthz") + get("/healthz"));
      assert.deepEqual(
        responses.map(({ status, headers }) => [status, headers["connection"]]),
        [[200, "close"]],
      );
    });

    it("9112 9.3: a connection stays open after a refusal that leaves no doubt about its framing", async () => {
      const refused = `PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc`;
      const responses = await exchangeOpen(app.port, `${refused}GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n`, 2);
      assert.deepEqual(
        responses.map(({ status }) => status),
        [405, 200],
      );
    });

    it("9110 9.3.2: HEAD has the fields of GET and no content", async () => {
      for (const path of ["/", "/healthz", "/readyz", "/nothing"]) {
        const [head] = await exchange(app.port, get(path).replace("GET", "HEAD"));
        const [full] = await exchange(app.port, get(path));
        assert.deepEqual([head?.status, head?.body], [full?.status, ""], path);
        assert.equal(head?.headers["content-type"], full?.headers["content-type"], path);
      }
    });
  });
}

/** What every response has: Date with 2xx to 4xx (RFC 9110, section 6.6.1), no length with 204 (8.6), and a body that says why. */
function assertComplete(response: RawResponse | undefined): asserts response is RawResponse {
  assert.ok(response);
  const { status, headers, body } = response;
  assert.match(headers["date"] ?? "", /^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$/);
  if (status === 204) assert.equal(headers["content-length"] ?? headers["transfer-encoding"], undefined);
  if (status >= 400) assert.match(body, /\w/, "a refusal has a body");
  if (status === 405) assert.match(headers["allow"] ?? "", /\w/);
}
