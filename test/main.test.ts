import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect as connectHttp2 } from "node:http2";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { Redis } from "ioredis";
import { pino } from "pino";
import { type AppProcess, startAppProcess, startTestApp } from "./support/app.ts";
import { freePort } from "./support/free-port.ts";
import { isListening, startMain } from "./support/main-run.ts";
import { need } from "./support/programs.ts";
import { startRedis } from "./support/redis-server.ts";
import { until } from "./support/until.ts";

const redis = need("redis-server");
const curl = need("curl");
const grpcurl = need("grpcurl");
const openssl = need("openssl");
const run = promisify(execFile);
/** Ends a test that hangs; every test here is much faster. */
const HANG_MS = 120_000;

async function get(app: Pick<AppProcess, "url">, id: string): Promise<unknown> {
  const response = await fetch(`${app.url}/Inventory/Get`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ id }),
  });
  return await response.json();
}

const readiness = async (app: Pick<AppProcess, "url">): Promise<number> =>
  (await fetch(`${app.url}/readyz`)).status;

async function ended(app: AppProcess): Promise<string> {
  await until(() => !app.process().running(), "the server ends");
  return app.process().describe();
}

const logged = (app: AppProcess, text: string): Promise<boolean> =>
  until(async () => (await app.output()).includes(text), `the log contains "${text}"`);

describe("an invalid environment", { timeout: HANG_MS }, () => {
  it("reports every fault on stderr, with exit code 2 and without secrets", async () => {
    await using main = startMain({
      PORT: "80a",
      REDIS_URL: "http://user:url-secret@redis:6379",
      REDIS_PORT: "0",
      REDIS_PASSWORD: "password-secret",
      KAFKA_BROKERS: "broker-without-port",
      TLS_CERT: "/nowhere/cert.pem",
      LOG_LEVEL: "loud",
      LOG_FORMAT: "xml",
      DEMO: "perhaps",
      INVENTORY_BUCKETS: "257",
      OPERATION_RETENTION_HOURS: "23",
      DRAIN_WAIT_MS: "-1",
      DRAIN_DEADLINE_MS: "1e3",
    });
    assert.equal(await main.exit, 2);
    assert.equal(main.stdout(), "");
    const lines = main.stderr().trim().split("\n").slice(1);
    assert.deepEqual(lines.map((line) => line.split(" ")[0]).toSorted(), [
      "DEMO",
      "DRAIN_DEADLINE_MS",
      "DRAIN_WAIT_MS",
      "INVENTORY_BUCKETS",
      "KAFKA_BROKERS",
      "LOG_FORMAT",
      "LOG_LEVEL",
      "OPERATION_RETENTION_HOURS",
      "PORT",
      "REDIS_PORT",
      "REDIS_URL",
      "TLS_CERT",
      "TLS_KEY",
    ]);
    assert.match(main.stderr(), /PORT is "80a"; must be a whole number from 0 to 65535/);
    assert.match(main.stderr(), /TLS_CERT is "\/nowhere\/cert\.pem"/);
    assert.doesNotMatch(main.stderr(), /secret/);
    assert.doesNotMatch(main.stderr(), /^\s+at /m, "without a stack trace");
  });

  it("exits if the data in Redis has another number of buckets", { skip: redis.missing }, async () => {
    await using server = await startRedis();
    await using first = await startAppProcess({ REDIS_URL: server.url, INVENTORY_BUCKETS: "4" });
    await until(async () => (await readiness(first)) === 200, "the first server is ready");
    await using other = startMain({ REDIS_URL: server.url });
    assert.equal(await other.exit, 2);
    assert.match(other.stderr(), /INVENTORY_BUCKETS is 8, .* laid out with 4 buckets/);
  });

  it("names the TLS files that hold no certificate", async () => {
    const dir = await mkdtemp(join(tmpdir(), "inventory-main-"));
    try {
      const path = join(dir, "empty.pem");
      await writeFile(path, "no certificate\n");
      await using main = startMain({ TLS_CERT: path, TLS_KEY: path });
      assert.equal(await main.exit, 2);
      assert.match(main.stderr(), /TLS_CERT/);
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });
});

describe("the log", { timeout: HANG_MS }, () => {
  it("is one JSON object a line on stdout, whatever peers send", async () => {
    await using main = startMain({ LOG_LEVEL: "trace" });
    await isListening(main);
    const [, port] = /"url":"http:\/\/127\.0\.0\.1:(\d+)"/.exec(main.stdout()) ?? [];
    for (const bytes of [
      'garbage\n\r\n{"level":1}\r\n\r\n',
      "GET /Inventory/Get HTTP/1.1\r\nHost: [\r\n\r\n",
    ]) {
      const socket = connect(Number(port), "127.0.0.1");
      socket.on("error", () => {});
      socket.end(bytes);
      socket.resume();
      await once(socket, "close");
    }
    main.signal("SIGTERM");
    assert.equal(await main.exit, 0);
    const lines = main.stdout().trimEnd().split("\n");
    const messages = lines.map((line) => {
      const entry = JSON.parse(line) as Record<string, unknown>;
      assert.equal(typeof entry["level"], "number", line);
      assert.ok(Number.isFinite(Date.parse(String(entry["time"]))), line);
      assert.equal(typeof entry["msg"], "string", line);
      return String(entry["msg"]);
    });
    assert.ok(
      messages.some((message) => message.includes("failed")),
      lines.join("\n"),
    );
    assert.equal(messages.at(-1), "Shut down");
    assert.match(main.stderr(), /store +embedded, in memory/);
  });

  it("is complete even if the process exits while the last line is being written", async () => {
    const runs = Array.from({ length: 8 }, async () => {
      // One thread for all writes of the process, so that lines queue.
      await using main = startMain({ LOG_LEVEL: "trace", UV_THREADPOOL_SIZE: "1" });
      await isListening(main);
      main.signal("SIGTERM");
      assert.equal(await main.exit, 0);
      assert.match(main.stdout(), /"msg":"Shut down"\}\n$/);
    });
    await Promise.all(runs);
  });
});

describe("a signal", { timeout: HANG_MS }, () => {
  const REQUEST = '{"id":"in-flight"}';

  /** Sends the head of a request, and awaits the 100 Continue of the server. */
  async function beginRequest(app: AppProcess): Promise<{ socket: Socket; received: () => string }> {
    const socket = connect(app.port, "127.0.0.1");
    let received = "";
    socket.setEncoding("utf8").on("data", (text: string) => {
      received += text;
    });
    socket.write(
      `POST /Inventory/Get HTTP/1.1\r\nHost: ${app.address}\r\nContent-Type: application/json\r\n` +
        `Content-Length: ${REQUEST.length}\r\nExpect: 100-continue\r\n\r\n`,
    );
    await until(() => received.startsWith("HTTP/1.1 100"), "the server responds with 100 Continue");
    return { socket, received: () => received };
  }

  it("SIGTERM completes an HTTP/1.1 request whose body is still arriving, then exits with 0", async () => {
    await using app = await startAppProcess();
    const { socket, received } = await beginRequest(app);
    socket.write(REQUEST.slice(0, 5));
    app.process().signal("SIGTERM");
    await logged(app, "Shutting down");
    await until(
      () =>
        fetch(app.url).then(
          () => false,
          () => true,
        ),
      "no new connection is accepted",
    );
    assert.ok(app.process().running());
    socket.write(REQUEST.slice(5));
    await once(socket, "close");
    assert.match(received(), /HTTP\/1\.1 404 .*connection: close.*"code":"not_found"/is);
    assert.match(await ended(app), /exit code 0/);
  });

  it("SIGINT sends GOAWAY on HTTP/2 and completes the open call", async () => {
    await using app = await startAppProcess();
    const session = connectHttp2(app.url);
    session.on("error", () => {});
    const begin = () =>
      session.request({
        ":method": "POST",
        ":path": "/Inventory/Get",
        "content-type": "application/grpc",
        te: "trailers",
      });
    const message = Buffer.from([0, 0, 0, 0, 3, 0x0a, 1, 0x61]);
    const open = begin();
    open.write(message.subarray(0, 6));
    const other = begin().end(message).resume();
    await once(other, "end");
    const goneAway = once(session, "goaway");
    app.process().signal("SIGINT");
    const [code] = await goneAway;
    assert.equal(code, 0);
    const closed = once(session, "close");
    open.end(message.subarray(6));
    open.resume();
    const [trailers] = await once(open, "trailers");
    assert.equal(trailers["grpc-status"], "5");
    await closed;
    assert.match(await ended(app), /exit code 0/);
  });

  it("makes the server unready while it still serves; a second signal exits at once", async () => {
    await using app = await startAppProcess({ DRAIN_WAIT_MS: "60000" });
    app.process().signal("SIGTERM");
    await until(async () => (await readiness(app)) === 503, "the server is unready");
    assert.partialDeepStrictEqual(await get(app, "a"), { code: "not_found" });
    app.process().signal("SIGTERM");
    assert.match(await ended(app), /exit code 1/);
  });

  it("closes open connections at the drain deadline, and logs it", async () => {
    await using app = await startAppProcess({ DRAIN_DEADLINE_MS: "100" });
    const { socket } = await beginRequest(app);
    socket.on("error", () => {});
    app.process().signal("SIGTERM");
    await once(socket, "close");
    assert.match(await ended(app), /exit code 0/);
    assert.match(await app.output(), /"destroyed":1,.*closed at the end of the drain deadline/);
  });
});

describe("with DEMO=on", () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "inventory-main-"));
  });
  after(() => rm(dir, { recursive: true, force: true }));

  /** The line of the banner that calls this program. */
  async function printedLine(app: AppProcess, program: string): Promise<string> {
    await logged(app, "Inventory.Get");
    const lines = (await app.output()).split("\n").map((text) => text.trim());
    const line = lines.find((text) => new RegExp(`^(echo .*\\| )?${program} `).test(text));
    assert.ok(line, `no ${program} line in:\n${lines.join("\n")}`);
    return line;
  }

  async function paste(line: string): Promise<string> {
    const folders = [dirname(curl.path), dirname(grpcurl.path), process.env["PATH"]];
    const { stdout } = await run("sh", ["-c", line], { env: { PATH: folders.join(delimiter) }, cwd: dir });
    return stdout;
  }

  async function hasChanged(app: AppProcess): Promise<boolean> {
    const productIds = Array.from({ length: 24 }, (_, n) => `demo-${String(n + 1).padStart(2, "0")}`);
    const response = await fetch(`${app.url}/inventory.v1.StockService/BatchGetStock`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ productIds }),
    });
    const { stocks } = (await response.json()) as { stocks: readonly { version: string }[] };
    assert.equal(stocks.length, productIds.length);
    return stocks.some(({ version }) => version !== "1");
  }

  async function tlsFiles(): Promise<NodeJS.ProcessEnv> {
    const [TLS_CERT, TLS_KEY] = [join(dir, "cert.pem"), join(dir, "key.pem")];
    const request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    await run(openssl.path, [...request, "-subj", "/CN=localhost", "-keyout", TLS_KEY, "-out", TLS_CERT]);
    return { TLS_CERT, TLS_KEY };
  }

  for (const tls of [false, true]) {
    const skip = tls && openssl.missing;
    it(`the commands in the banner work when pasted${tls ? ", with TLS" : ""}`, { skip }, async (t) => {
      await using app = await startAppProcess({
        DEMO: "on",
        LOG_FORMAT: "auto",
        ...(tls ? await tlsFiles() : {}),
      });
      await t.test("curl", { skip: curl.missing }, async () => {
        const { stock } = JSON.parse(await paste(await printedLine(app, "curl"))) as { stock: unknown };
        assert.partialDeepStrictEqual(stock, { productId: "demo-01", product: { name: "Floral Dress" } });
      });
      await t.test("grpcurl", { skip: grpcurl.missing }, async () => {
        const { count } = JSON.parse(await paste(await printedLine(app, "grpcurl"))) as { count: string };
        assert.match(count, /^\d+$/);
      });
      if (!tls) {
        await t.test(
          "and counts change",
          async () => void (await until(() => hasChanged(app), "a count changes")),
        );
      }
    });
  }
});

describe("with Redis", { skip: redis.missing }, () => {
  /** So that there is no warning of writes that are open. */
  const GUARDED = { AUTH_TOKENS: `orders:orders:${"0".repeat(64)}` };
  const warningsOf = async (app: AppProcess): Promise<string> => {
    // The log is written by another thread, in order: a server may answer before its warnings are there.
    await logged(app, "Listening on");
    const lines = (await app.output()).split("\n").filter((line) => line.startsWith('{"level":40'));
    return lines.map((line) => (JSON.parse(line) as { msg: string }).msg).join("\n");
  };

  it("a plain key is a count: SET p1 5, then Inventory.Get gives 5", async () => {
    const password = "pass:word/with?signs";
    await using server = await startRedis({ args: ["--requirepass", password] });
    const client = new Redis({ host: server.host, port: server.port, password });
    try {
      await client.set("p1", "5");
      const secret = encodeURIComponent(password);
      await using byUrl = await startAppProcess({
        REDIS_URL: `redis://:${secret}@${server.host}:${server.port}`,
        ...GUARDED,
      });
      assert.deepEqual(await get(byUrl, "p1"), { count: "5" });
      await logged(byUrl, "Listening on");
      const output = await byUrl.output();
      assert.ok(!output.includes(password) && !output.includes(secret), "no output contains the password");
      assert.equal(await warningsOf(byUrl), "", "no warning for these settings");
      await client.set("p2", "6");
      await using byHost = await startTestApp({
        REDIS_HOST: server.host,
        REDIS_PORT: String(server.port),
        REDIS_PASSWORD: password,
      });
      assert.deepEqual(await get(byHost, "p2"), { count: "6" });
    } finally {
      client.disconnect();
    }
  });

  it("warns of each setting of Redis that can lose stock", async () => {
    await using eager = await startRedis({ appendonly: "no", args: ["--maxmemory-policy", "allkeys-lru"] });
    await using app = await startAppProcess({ REDIS_URL: eager.url, ...GUARDED });
    const warnings = await warningsOf(app);
    assert.match(warnings, /appendonly is not 'yes'/);
    assert.match(warnings, /maxmemory-policy is 'allkeys-lru'/);
    assert.equal(warnings.split("\n").length, 2);

    const lines: string[] = [];
    const log = pino({ level: "warn" }, { write: (line) => lines.push(line) });
    await using lazy = await startRedis({ appendfsync: "everysec" });
    await using _app = await startTestApp({ REDIS_URL: lazy.url }, { log });
    assert.match(lines.join(""), /appendfsync is 'everysec'.*set 'appendfsync always'/);
  });

  it("starts unready while Redis is unreachable, and serves when it is back", async () => {
    const port = await freePort();
    await using app = await startTestApp({ REDIS_HOST: "127.0.0.1", REDIS_PORT: String(port) });
    assert.equal(await readiness(app), 503);
    assert.partialDeepStrictEqual(await get(app, "p1"), { code: "unavailable" });
    await using _server = await startRedis({ port });
    await until(async () => (await readiness(app)) === 200, "the server is ready");
    assert.partialDeepStrictEqual(await get(app, "p1"), { code: "not_found" });
  });
});
