import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { startTestApp, type TestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";

const program = need("curl");
const redis = need("redis-server");
const run = promisify(execFile);

const JSON_POST = ["-H", "Content-Type: application/json", "-d"];
const H2 = "--http2-prior-knowledge";

interface CurlResponse {
  readonly protocol: string;
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

interface WireError {
  readonly code: string;
  readonly message: string;
  readonly details?: readonly { readonly type: string; readonly value: string; readonly debug: unknown }[];
}

async function curl(...args: readonly string[]): Promise<CurlResponse> {
  const { stdout } = await run(program.path, ["-sS", "-i", "--max-time", "20", ...args], {
    maxBuffer: 16 * 1024 * 1024,
  });
  const end = stdout.indexOf("\r\n\r\n");
  const [first = "", ...lines] = stdout.slice(0, end).split("\r\n");
  const [protocol = "", status = ""] = first.split(" ");
  const headers = new Headers(
    lines.map((line): [string, string] => [
      line.slice(0, line.indexOf(":")),
      line.slice(line.indexOf(":") + 1).trim(),
    ]),
  );
  return { protocol, status: Number(status), headers, text: stdout.slice(end + 4) };
}

function bodyOf(response: CurlResponse): Record<string, unknown> {
  assert.equal(response.headers.get("content-type"), "application/json", response.text);
  return JSON.parse(response.text) as Record<string, unknown>;
}

function assertError(response: CurlResponse, status: number, code: string, message: RegExp): WireError {
  assert.equal(response.status, status, response.text);
  const error = bodyOf(response) as unknown as WireError;
  assert.equal(error.code, code);
  assert.match(error.message, message);
  return error;
}

describe("by curl", { skip: program.missing }, () => {
  let app: TestApp;
  const url = (path: string): string => `${app.url}${path}`;
  const post = (method: string, message: unknown, ...args: readonly string[]): Promise<CurlResponse> =>
    curl(...args, ...JSON_POST, JSON.stringify(message), url(`/${method}`));
  const get = (method: string, message: unknown, ...args: readonly string[]): Promise<CurlResponse> =>
    curl(
      ...args,
      url(`/${method}?connect=v1&encoding=json&message=${encodeURIComponent(JSON.stringify(message))}`),
    );
  const assertAlive = async (): Promise<void> => {
    assert.equal((await curl(url("/healthz"))).status, 200);
    assert.equal((await post("Inventory/Get", { id: "shown" })).status, 200);
    assert.equal((await post("Inventory/Get", { id: "shown" }, H2)).status, 200);
  };

  before(async () => {
    app = await startTestApp();
    await until(async () => (await fetch(url("/readyz"))).ok, "the server is ready");
    const product = { name: "Linen Shirt", price: 65, collectionId: "spring" };
    await post("inventory.v1.SupplyService/PutProduct", { productId: "shown", declared: 5, product });
  });
  after(() => app?.stop());

  const READS: readonly { method: string; message: object; expected: object }[] = [
    { method: "Inventory/Get", message: { id: "shown" }, expected: { count: "5" } },
    {
      method: "inventory.v1.StockService/GetStock",
      message: { productId: "shown" },
      expected: {
        stock: { productId: "shown", available: 5, version: "1", product: { name: "Linen Shirt" } },
      },
    },
    {
      method: "inventory.v1.StockService/BatchGetStock",
      message: { productIds: ["shown", "hidden"] },
      expected: { stocks: [{ productId: "shown", available: 5 }], unknownProductIds: ["hidden"] },
    },
    {
      method: "inventory.v1.SupplyService/GetLedger",
      message: { productId: "shown" },
      expected: { ledger: { productId: "shown", declared: 5, onHand: 5, available: 5, version: "1" } },
    },
    {
      method: "inventory.v1.SupplyService/ListChanges",
      message: { productId: "shown" },
      expected: { changes: [{ productId: "shown", cause: "CHANGE_CAUSE_DECLARED", delta: 5 }] },
    },
  ];

  for (const { method, message, expected } of READS) {
    for (const [version, ...args] of [
      ["HTTP/1.1", "--http1.1"],
      ["HTTP/2", H2],
    ] as const) {
      it(`POST and GET ${method} over ${version}`, async () => {
        const posted = await post(method, message, ...args);
        const got = await get(method, message, ...args);
        for (const response of [posted, got]) {
          assert.equal(response.protocol, version);
          assert.equal(response.status, 200, response.text);
          assert.partialDeepStrictEqual(bodyOf(response), expected);
        }
        assert.deepEqual(bodyOf(got), bodyOf(posted));
      });
    }
  }

  it("accepts proto names as well as JSON names, and refuses a mutation by GET", async () => {
    const proto = { product_id: "curl-names", declared: 2 };
    assert.equal((await post("inventory.v1.SupplyService/PutProduct", proto)).status, 200);
    const refused = await get("inventory.v1.SupplyService/PutProduct", { ...proto, declared: 9 });
    assert.equal(refused.status, 405);
    assert.deepEqual(bodyOf(await post("Inventory/Get", { id: "curl-names" })), { count: "2" });
  });

  it("reports an error's code, message and details in JSON, with the HTTP status of the code", async () => {
    const supply = (method: string, message: object): Promise<CurlResponse> =>
      post(`inventory.v1.SupplyService/${method}`, message);
    const productId = "curl-errors";
    await supply("PutProduct", { productId, declared: 1 });
    const adjustment = { productId, delta: 1, adjustmentId: randomUUID() };
    await supply("AdjustStock", adjustment);
    const count = { productId, count: 1, countId: randomUUID(), expectedVersion: "9" };

    assertError(await post("Inventory/Get", { id: "hidden" }), 404, "not_found", /"hidden"/);
    assertError(
      await supply("AdjustStock", { ...adjustment, delta: 2 }),
      409,
      "already_exists",
      /adjustment_id/,
    );
    assertError(await supply("CountStock", count), 409, "aborted", /version 9/);
    assertError(
      await supply("AdjustStock", { productId, delta: -9, adjustmentId: randomUUID() }),
      400,
      "failed_precondition",
      /by -9: 2 are on hand/,
    );
    const invalid = assertError(
      await supply("AdjustStock", { productId: "", delta: 0, adjustmentId: "a" }),
      400,
      "invalid_argument",
      /product_id is empty; .*delta is 0/,
    );
    const [detail] = invalid.details ?? [];
    assert.equal(detail?.type, "google.rpc.BadRequest");
    assert.partialDeepStrictEqual(detail?.debug, {
      fieldViolations: [{ field: "product_id" }, { field: "delta" }],
    });
    assert.match(Buffer.from(detail?.value ?? "", "base64").toString(), /product_id.*delta/s);
  });

  for (const args of [["--http1.1"], [H2]]) {
    it(`refuses malformed JSON with invalid_argument (${args[0]})`, async () => {
      for (const body of ['{"id":"shown"', "", "[]", '"shown"', '{"id":{}}']) {
        const response = await curl(...args, ...JSON_POST, body, url("/Inventory/Get"));
        assertError(response, 400, "invalid_argument", /not valid JSON|give a JSON object|id is \{\}/);
        const query = `connect=v1&encoding=json&message=${encodeURIComponent(body)}`;
        assertError(
          await curl(...args, url(`/Inventory/Get?${query}`)),
          400,
          "invalid_argument",
          /not valid JSON|give a JSON object|id is \{\}/,
        );
      }
    });

    it(`refuses a wrong content type with 415, an unknown method and path with 404 (${args[0]})`, async () => {
      const typed = (type: string, path: string): Promise<CurlResponse> =>
        curl(...args, "-X", "POST", "-H", `Content-Type: ${type}`, url(path));
      for (const type of ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "", "x"]) {
        assert.equal((await typed(type, "/Inventory/Get")).status, 415, type);
      }
      for (const path of [
        "/Inventory/Nothing",
        "/inventory.v1.NoService/Get",
        "/inventory/get",
        "/none",
        "//",
      ]) {
        assert.equal((await typed("application/json", path)).status, 404, path);
        assert.equal((await curl(...args, url(path))).status, 404, path);
      }
      for (const method of ["PUT", "DELETE", "PATCH"]) {
        const response = await curl(...args, "-X", method, url("/Inventory/Get"));
        assert.equal(response.status, 405, method);
      }
    });
  }

  it("serves two requests on one HTTP/1.1 connection", async () => {
    const { stdout } = await run(program.path, [
      "-sS",
      "--http1.1",
      ...["-w", "%{http_version} %{http_code} %{num_connects}\n", "-o", "/dev/null"],
      url("/healthz"),
      ...[
        "-o",
        "/dev/null",
        url("/Inventory/Get?connect=v1&encoding=json&message=%7B%22id%22%3A%22shown%22%7D"),
      ],
    ]);
    assert.deepEqual(stdout.trim().split("\n"), ["1.1 200 1", "1.1 200 0"]);
  });

  it("sends the same response to a client that accepts compression", async () => {
    const productIds = Array.from({ length: 50 }, () => "shown");
    const batch = ["inventory.v1.StockService/BatchGetStock", { productIds }] as const;
    const plain = await post(...batch);
    assert.equal(plain.headers.get("content-encoding"), null);
    for (const args of [["--http1.1"], [H2]]) {
      assert.equal((await post(...batch, ...args, "--compressed")).text, plain.text);
    }
  });

  it("refuses a body above the limit with resource_exhausted", async () => {
    const { stdout } = await new Promise<{ stdout: string }>((resolve, reject) => {
      const args = ["-sS", ...JSON_POST, "@-", url("/Inventory/Get")];
      const child = execFile(program.path, args, (error, stdout) =>
        error ? reject(error) : resolve({ stdout }),
      );
      child.stdin?.on("error", () => {});
      child.stdin?.end(JSON.stringify({ id: "x".repeat(1_100_000) }));
    });
    assert.equal((JSON.parse(stdout) as WireError).code, "resource_exhausted");
  });

  it("/healthz and /readyz are 200, also over HTTP/1.0 without a Host", async () => {
    for (const args of [["--http1.1"], [H2], ["--http1.0", "-H", "Host:"]]) {
      assert.equal((await curl(...args, url("/healthz"))).status, 200);
      const ready = await curl(...args, url("/readyz"));
      assert.equal(ready.status, 200);
      assert.partialDeepStrictEqual(bodyOf(ready), { ready: true, reasons: [] });
      assert.equal(ready.headers.get("cache-control"), "no-store");
    }
  });

  it("the page is HTML with a content security policy for its own origin only", async () => {
    const page = await curl(url("/"));
    assert.equal(page.status, 200);
    assert.match(page.headers.get("content-type") ?? "", /^text\/html; charset=utf-8$/);
    assert.match(page.text, /^<!doctype html>/i);
    const policy = page.headers.get("content-security-policy") ?? "";
    assert.match(policy, /default-src 'none'/);
    assert.doesNotMatch(policy, /unsafe|\*/);
    assert.equal(page.headers.get("x-content-type-options"), "nosniff");
    const head = await curl("--head", url("/"));
    assert.equal(head.status, 200);
    assert.equal(head.headers.get("content-length"), String(Buffer.byteLength(page.text)));
    for (const [, path = ""] of page.text.matchAll(/(?:src|href)="(\/[^"]+)"/g)) {
      assert.equal((await curl(url(path))).status, 200, path);
    }
  });

  it("refuses gRPC over HTTP/1.1 with 505", async () => {
    for (const type of ["application/grpc", "application/grpc+proto", "application/grpc+json"]) {
      const path = url("/Inventory/Get");
      const response = await curl("--http1.1", "-H", `Content-Type: ${type}`, "--data-binary", "x", path);
      assert.equal(response.status, 505, type);
      assert.match(response.text, /HTTP\/2/);
    }
  });

  it("responds with 400 to an invalid Host on every valid path, and stays up", async () => {
    const malformed = [
      ["--http1.1", "-H", "Host: ["],
      ["--http1.1", "-H", "Host: a b"],
      ["--http1.1", "-H", "Host;"],
      ["--http1.1", "-H", "Host:"],
      ["--http1.1", "-H", "Host: a:b:c"],
      [H2, "-H", "Host: ["],
    ];
    for (const args of malformed) {
      for (const path of [
        "/Inventory/Get",
        "/inventory.v1.StockService/GetStock",
        "/grpc.health.v1.Health/Check",
      ]) {
        const response = await curl(...args, url(`${path}?connect=v1&encoding=json&message=%7B%7D`));
        assert.equal(response.status, 400, `${args.join(" ")} ${path}`);
      }
    }
    await assertAlive();
  });
});

describe("by curl on Redis", { skip: program.missing || redis.missing }, () => {
  it("/readyz is 503 with the reason while Redis is unavailable, and calls end with unavailable", async () => {
    await using server = await startRedis();
    await using app = await startTestApp({ REDIS_URL: server.url });
    const readiness = async (status: number): Promise<CurlResponse | false> => {
      const response = await curl(`${app.url}/readyz`);
      return response.status === status && response;
    };
    await until(() => readiness(200), "the server is ready");
    await server.kill9();
    const unready = await until(() => readiness(503), "/readyz reports that Redis is unavailable");
    const { ready, reasons } = bodyOf(unready) as { ready: boolean; reasons: readonly string[] };
    assert.equal(ready, false);
    assert.match(reasons.join(), /Redis/);
    assert.equal((await curl(`${app.url}/healthz`)).status, 200, "a restart of this server would not help");
    const call = [...JSON_POST, '{"id":"any"}', `${app.url}/Inventory/Get`];
    const error = assertError(await curl(...call), 503, "unavailable", /./);
    assert.equal(error.details?.[0]?.type, "google.rpc.RetryInfo");
    await server.restart();
    await until(() => readiness(200), "/readyz reports that Redis is available again");
    assertError(await curl(...call), 404, "not_found", /"any"/);
  });

  it("Connect-Timeout-Ms is a deadline: 504 deadline_exceeded while Redis does not respond", async () => {
    await using server = await startRedis();
    await using app = await startTestApp({ REDIS_URL: server.url });
    server.pause();
    try {
      const args = ["-H", "Connect-Timeout-Ms: 100", ...JSON_POST, '{"id":"any"}'];
      assertError(await curl(...args, `${app.url}/Inventory/Get`), 504, "deadline_exceeded", /./);
    } finally {
      server.resume();
    }
  });
});
