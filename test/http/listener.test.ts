import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { Agent, type IncomingHttpHeaders, request as request1 } from "node:http";
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connect2,
  constants,
  type OutgoingHttpHeaders,
} from "node:http2";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { describe, it, type TestContext } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import { pino } from "pino";
import { LISTENER_LIMITS_DEFAULT, type ListenerLimits } from "../../server/http/listener/limits.ts";
import { type Listener, startListener } from "../../server/http/listener/listener.ts";
import type { HttpRequest, HttpResponse } from "../../server/http/message.ts";
import { until } from "../support/until.ts";

const HOST = "127.0.0.1";
const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
const HELLO_1 = `GET /hello HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`;
const FRAME = { data: 0, headers: 1, reset: 3, settings: 4, ping: 6, goaway: 7 } as const;
const END_STREAM = 1;
const END_HEADERS = 4;
const SETTINGS = frame(FRAME.settings, 0, 0);

/** More than Node buffers of a request that is not read, so that it stops reading the socket. */
const UNREAD_BYTES = 4 * 1024 * 1024;

/** The body of the response when the handler throws. */
const UNPROCESSED = "The request could not be processed\n";

/** For a limit that a test waits for. */
const SHORT_MS = 60;
/** For a limit that must not expire before the test has taken a step, even if this process is suspended for a while. */
const PATIENT_MS = 1_000;

interface LogLine {
  readonly level: number;
  readonly msg: string;
}

interface Opened extends Listener {
  readonly lines: LogLine[];
  /** The requests for `/hold` and `/stream` without a complete response. */
  readonly held: { readonly req: HttpRequest; readonly res: HttpResponse }[];
}

interface OpenOptions {
  readonly limits?: Partial<ListenerLimits>;
  readonly tls?: { readonly cert: Buffer; readonly key: Buffer };
  readonly networkOf?: (address: string) => string | undefined;
}

/**
 * A listener that responds to `/hello` once the body is read and to `/partial` after a part of it, holds `/hold` and `/stream`
 * (after the start of its response), and throws on `/throw` and `/throw-late`. Paths below `/long` are long-lived.
 */
async function open(t: TestContext, options: OpenOptions = {}): Promise<Opened> {
  const lines: LogLine[] = [];
  const held: Opened["held"] = [];
  const listener = await startListener({
    host: HOST,
    port: 0,
    handler: (req, res) => {
      const path = req.url ?? "";
      if (path.startsWith("/throw")) {
        res.setHeader("X-Left-Over", "1");
        if (path === "/throw-late") begin(res, "late");
        throw new TypeError("Invalid URL");
      }
      if (path.endsWith("/hold")) {
        held.push({ req, res });
        return;
      }
      if (path === "/partial") {
        const body: Readable = req;
        body.once("data", () => {
          body.pause();
          res.end("partial");
        });
        return;
      }
      if (path.endsWith("/stream")) {
        begin(res, "begin");
        held.push({ req, res });
        return;
      }
      let bytes = 0;
      const body: Readable = req;
      body.on("data", (chunk: Buffer) => {
        bytes += chunk.length;
      });
      body.on("end", () => res.end(`hello after ${bytes} bytes over ${req.httpVersion}`));
    },
    isLongLived: (path) => path.startsWith("/long"),
    log: pino({ level: "debug" }, { write: (line: string) => lines.push(JSON.parse(line)) }),
    ...options,
  });
  t.after(() => listener.drain(0));
  return Object.assign(listener, { lines, held });
}

function begin(res: NodeJS.WritableStream, text: string): void {
  res.write(text);
}

/** A TCP or TLS client that sends raw bytes and records what it receives. */
class Client {
  readonly socket: Socket;
  readonly closed: Promise<unknown>;
  bytes = Buffer.alloc(0);

  constructor(socket: Socket) {
    this.socket = socket;
    this.closed = new Promise((resolve) => socket.once("close", resolve));
    socket.on("error", () => undefined);
    socket.on("data", (chunk: Buffer) => {
      this.bytes = Buffer.concat([this.bytes, chunk]);
    });
  }

  static async open(t: TestContext, port: number): Promise<Client> {
    const client = new Client(connect({ port, host: HOST, noDelay: true }));
    t.after(() => client.socket.destroy());
    await once(client.socket, "connect");
    return client;
  }

  static async openTls(t: TestContext, port: number, ALPNProtocols: string[] = []): Promise<Client> {
    const socket = connectTls({ port, host: HOST, rejectUnauthorized: false, ALPNProtocols });
    const client = new Client(socket);
    t.after(() => socket.destroy());
    await once(socket, "secureConnect");
    return client;
  }

  /** Writes the bytes one at a time, with turns of the event loop between, in which the server reads each. */
  async drip(bytes: Buffer): Promise<void> {
    for (const byte of bytes) {
      this.socket.write(Buffer.of(byte));
      await turn();
      await turn();
    }
  }

  text(): string {
    return this.bytes.toString("latin1");
  }

  frames(): { type: number; flags: number; stream: number; payload: Buffer }[] {
    const frames = [];
    for (let at = 0; at + 9 <= this.bytes.length; ) {
      const length = this.bytes.readUIntBE(at, 3);
      const payload = this.bytes.subarray(at + 9, at + 9 + length);
      if (payload.length < length) break;
      const [type = 0, flags = 0] = this.bytes.subarray(at + 3);
      frames.push({ type, flags, stream: this.bytes.readUInt32BE(at + 5), payload });
      at += 9 + length;
    }
    return frames;
  }

  has(type: number, stream = 0): boolean {
    return this.frames().some((each) => each.type === type && each.stream === stream);
  }
}

function frame(type: number, flags: number, stream: number, payload = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** HEADERS of `GET path`, or of a POST whose body follows. */
function requestFrame(stream: number, path: string, method: "GET" | "POST" = "GET"): Buffer {
  const literal = (index: number, value: string): Buffer =>
    Buffer.concat([Buffer.of(index, value.length), Buffer.from(value)]);
  const block = [Buffer.of(method === "GET" ? 0x82 : 0x83, 0x86), literal(4, path), literal(1, HOST)];
  const flags = method === "GET" ? END_HEADERS | END_STREAM : END_HEADERS;
  return frame(FRAME.headers, flags, stream, Buffer.concat(block));
}

interface Reply {
  readonly status: number | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** One request over HTTP/1.1, on a connection of its own unless `agent` keeps one. */
async function ask1(
  port: number,
  path: string,
  headers: OutgoingHttpHeaders = {},
  agent?: Agent,
): Promise<Reply> {
  const req = request1({ host: HOST, port, path, headers, agent: agent ?? false });
  req.end();
  const [res] = await once(req, "response");
  return { status: res.statusCode, headers: res.headers, body: await bodyOf(res) };
}

function session(t: TestContext, port: number, options: object = {}): ClientHttp2Session {
  const client = connect2(`http://${HOST}:${port}`, options);
  client.on("error", () => undefined);
  t.after(() => client.destroy());
  return client;
}

/** One request over HTTP/2; rejects when the stream is reset. */
async function ask2(
  client: ClientHttp2Session,
  path: string,
  headers: OutgoingHttpHeaders = {},
): Promise<Reply> {
  return answerOf(client.request({ ":path": path, ...headers }));
}

async function answerOf(stream: ClientHttp2Stream): Promise<Reply> {
  const closed = once(stream, "close").then(() => {
    throw new Error("the stream ended without a response");
  });
  const [headers] = await Promise.race([once(stream, "response"), closed]);
  return { status: headers[":status"], headers, body: await bodyOf(stream) };
}

async function bodyOf(stream: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

/** The code with which a stream is reset. */
async function resetOf(stream: ClientHttp2Stream): Promise<number | undefined> {
  stream.on("error", () => undefined);
  stream.resume();
  await new Promise((resolve) => stream.once("close", resolve));
  return stream.rstCode;
}

/** The short limits of a test may close a new connection before it is served, so this retries until one is. */
async function assertServing(t: TestContext, listener: Listener): Promise<void> {
  await until(async () => (await ask1(listener.port, "/hello")).status === 200, "HTTP/1.1 is answered");
  await until(async () => {
    const client = session(t, listener.port);
    const { status } = await ask2(client, "/hello");
    client.close();
    return status === 200;
  }, "HTTP/2 is answered");
}

async function nextHeld(listener: Opened, count = 1): Promise<Opened["held"][number]> {
  await until(() => listener.held.length >= count, `${count} requests are held`);
  const last = listener.held[count - 1];
  assert.ok(last);
  return last;
}

function certificate(): { cert: Buffer; key: Buffer } {
  const folder = mkdtempSync(join(tmpdir(), "listener-"));
  try {
    const [cert, key] = [join(folder, "cert.pem"), join(folder, "key.pem")];
    const subject = ["-subj", "/CN=localhost", "-days", "1"];
    const kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"];
    execFileSync("openssl", ["req", "-x509", ...kind, ...subject, "-keyout", key, "-out", cert], {
      stdio: "ignore",
    });
    return { cert: readFileSync(cert), key: readFileSync(key) };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe("protocol detection", { concurrency: true }, () => {
  it("detects HTTP/2 when the preface arrives in single bytes", async (t) => {
    const { port } = await open(t);
    const client = await Client.open(t, port);
    await client.drip(Buffer.concat([PREFACE, SETTINGS, requestFrame(1, "/hello")]));
    await until(() => client.text().includes("hello after 0 bytes over 2.0"), "the stream is answered");
  });

  it("detects HTTP/2 wherever the preface is split", async (t) => {
    const { port } = await open(t);
    for (let at = 1; at <= PREFACE.length; at++) {
      const client = await Client.open(t, port);
      client.socket.write(PREFACE.subarray(0, at));
      await turn();
      await turn();
      client.socket.write(Buffer.concat([PREFACE.subarray(at), SETTINGS, requestFrame(1, "/hello")]));
      await until(() => client.text().includes("over 2.0"), `the preface split at ${at} is understood`);
      client.socket.destroy();
    }
  });

  it("detects HTTP/1.1 in single bytes that start like the preface", async (t) => {
    const { port } = await open(t);
    const client = await Client.open(t, port);
    await client.drip(Buffer.from(`POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc`));
    await until(() => client.text().endsWith("hello after 3 bytes over 1.1"), "the request is answered");
  });

  it("responds to HTTP/1.1 requests that arrive in one packet", async (t) => {
    const { port } = await open(t);
    const client = await Client.open(t, port);
    client.socket.write(HELLO_1.repeat(3));
    await until(() => client.text().split("hello after").length === 4, "all three are answered");
  });

  it("ignores `Upgrade: h2c` and responds over HTTP/1.1", async (t) => {
    const { port } = await open(t);
    const headers = { Connection: "Upgrade, HTTP2-Settings", Upgrade: "h2c", "HTTP2-Settings": "AAMAAABk" };
    const answer = await ask1(port, "/hello", headers);
    assert.equal(answer.body, "hello after 0 bytes over 1.1");
  });

  it("refuses CONNECT, unknown methods and a preface of another version", async (t) => {
    const listener = await open(t);
    for (const head of ["CONNECT a:1 HTTP/1.1", "BREW /pot HTTP/1.1", "PRI * HTTP/1.1", "PRI * HTTP/2.1"]) {
      const client = await Client.open(t, listener.port);
      client.socket.write(`${head}\r\nHost: a\r\n\r\n`);
      await client.closed;
      assert.doesNotMatch(client.text(), /^HTTP\/1.1 200/, head);
    }
    const stream = session(t, listener.port).request({ ":method": "CONNECT", ":authority": "a:1" });
    assert.equal((await answerOf(stream)).status, 405);
    await assertServing(t, listener);
  });
});

describe("TLS on the port", { concurrency: true }, () => {
  const tls = certificate();

  it("speaks the protocol that ALPN selects, and HTTP/1.1 without ALPN", async (t) => {
    const { port } = await open(t, { tls });
    const client = connect2(`https://${HOST}:${port}`, { rejectUnauthorized: false });
    t.after(() => client.destroy());
    assert.equal((await ask2(client, "/hello")).body, "hello after 0 bytes over 2.0");
    for (const alpn of [["http/1.1"], []]) {
      const over1 = await Client.openTls(t, port, alpn);
      over1.socket.write(HELLO_1);
      await until(() => over1.text().includes("over 1.1"), `ALPN [${alpn}] is answered`);
    }
  });

  it("reads an HTTP/2 preface in single bytes", async (t) => {
    const { port } = await open(t, { tls });
    const client = await Client.openTls(t, port, ["h2"]);
    await client.drip(Buffer.concat([PREFACE, SETTINGS, requestFrame(1, "/hello")]));
    await until(() => client.text().includes("over 2.0"), "the stream is answered");
  });

  it("closes silent connections, before the handshake and after it", async (t) => {
    const listener = await open(t, { tls, limits: { firstByteMs: PATIENT_MS } });
    const clients = [
      await Client.open(t, listener.port),
      await Client.openTls(t, listener.port, ["h2"]),
      await Client.openTls(t, listener.port, ["http/1.1"]),
      await Client.openTls(t, listener.port),
    ];
    await Promise.all(clients.map((client) => client.closed));
    await until(() => listener.connections() === 0, "all connections are closed");
    assert.equal(listener.lines.length, 4);
  });

  it("closes connections without TLS or without a common protocol, logs each once, and keeps serving", async (t) => {
    const listener = await open(t, { tls });
    const plain = await Client.open(t, listener.port);
    plain.socket.write(HELLO_1);
    await plain.closed;
    await assert.rejects(Client.openTls(t, listener.port, ["spdy/3"]));
    await until(() => listener.connections() === 0, "both are closed");
    assert.deepEqual(
      listener.lines.map((line) => line.msg.replace(/^.*(ERR_\w+).*$/, "$1")),
      ["ERR_SSL_HTTP_REQUEST", "ERR_SSL_NO_APPLICATION_PROTOCOL"],
    );
    const client = await Client.openTls(t, listener.port);
    client.socket.write(HELLO_1);
    await until(() => client.text().includes("hello"), "the next one is answered");
  });

  it("drains: closes an unfinished handshake and completes an open request", async (t) => {
    const listener = await open(t, { tls });
    const silent = await Client.open(t, listener.port);
    const busy = await Client.openTls(t, listener.port);
    busy.socket.write(HELLO_1.replace("/hello", "/hold"));
    const { res } = await nextHeld(listener);
    const drained = listener.drain(60_000);
    await silent.closed;
    res.end("held");
    assert.deepEqual(await drained, { destroyed: 0 });
    await busy.closed;
    assert.match(busy.text(), /^HTTP\/1.1 200 OK\r\nConnection: close/i);
    assert.deepEqual(listener.lines, []);
  });
});

describe("timeouts", { concurrency: true }, () => {
  it("closes connections that send nothing, or a part of the preface", async (t) => {
    const listener = await open(t, { limits: { firstByteMs: SHORT_MS } });
    const silent = await Client.open(t, listener.port);
    const partial = await Client.open(t, listener.port);
    partial.socket.write(PREFACE.subarray(0, 23));
    await Promise.all([silent.closed, partial.closed]);
    await until(() => listener.connections() === 0, "both connections are closed");
    assert.deepEqual(
      listener.lines.map((line) => [line.level, line.msg.replace(/^.*failed: /, "")]),
      Array(2).fill([20, `no request began within ${SHORT_MS} ms`]),
    );
    await assertServing(t, listener);
  });

  it("closes a session that sends only the preface", async (t) => {
    const listener = await open(t, { limits: { firstByteMs: PATIENT_MS } });
    const client = await Client.open(t, listener.port);
    client.socket.write(PREFACE);
    await client.closed;
    assert.match(listener.lines[0]?.msg ?? "", /no SETTINGS arrived/);
  });

  it("closes an idle session with GOAWAY, also when the client keeps its half open", async (t) => {
    const listener = await open(t, { limits: { idleMs: SHORT_MS, closeMs: SHORT_MS } });
    const socket = connect({ port: listener.port, host: HOST, allowHalfOpen: true });
    const client = new Client(socket);
    t.after(() => socket.destroy());
    socket.write(Buffer.concat([PREFACE, SETTINGS]));
    await until(() => client.has(FRAME.goaway), "GOAWAY arrived");
    await until(() => listener.connections() === 0, "the connection is closed");
    assert.deepEqual(listener.lines, []);
  });

  it("keeps a session with a silent open stream, and closes it after the stream ended", async (t) => {
    const listener = await open(t, { limits: { idleMs: PATIENT_MS } });
    const client = session(t, listener.port);
    const stream = client.request({ ":path": "/hold" });
    const answered = answerOf(stream);
    const { res } = await nextHeld(listener);
    // This session started later, so it would be closed later.
    await once(session(t, listener.port), "close");
    assert.equal(client.closed, false);
    res.end("held");
    assert.equal((await answered).status, 200);
    await once(client, "close");
  });

  it("reaches the next request of an HTTP/1.1 connection when the handler left a part of the body unread", async (t) => {
    const listener = await open(t);
    const client = await Client.open(t, listener.port);
    const body = "x".repeat(UNREAD_BYTES);
    client.socket.write(
      `POST /partial HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n${body}${HELLO_1}`,
    );
    await until(() => client.text().includes("hello after"), "the next request is answered");
    assert.match(client.text(), /partial/);
  });

  it("leaves no listener on a closed HTTP/2 stream: V8 may keep the stream, and with it all that they reference", async (t) => {
    const listener = await open(t);
    const client = session(t, listener.port);
    for (const [index, end] of ["response", "reset"].entries()) {
      const request = client.request({ ":path": "/hold" });
      const answered = end === "response" ? answerOf(request) : resetOf(request);
      const { res } = await nextHeld(listener, index + 1);
      assert.ok("stream" in res);
      const { stream } = res;
      assert.ok(stream.listenerCount("close") > 0);
      const closed = once(stream, "close");
      if (end === "response") res.end();
      else request.close(constants.NGHTTP2_CANCEL);
      await Promise.all([answered, closed]);
      assert.deepEqual(stream.eventNames(), []);
    }
  });

  it("closes an idle HTTP/1.1 connection", async (t) => {
    const listener = await open(t, { limits: { idleMs: SHORT_MS } });
    const client = await Client.open(t, listener.port);
    client.socket.write(HELLO_1);
    await client.closed;
    assert.match(client.text(), /hello after/);
    assert.deepEqual(listener.lines, []);
  });

  it("announces a keep-alive time to HTTP/1.1 clients that is longer than a load balancer's", async (t) => {
    const { port } = await open(t);
    const agent = new Agent({ keepAlive: true });
    t.after(() => agent.destroy());
    assert.equal((await ask1(port, "/hello", {}, agent)).headers["keep-alive"], "timeout=75");
    assert.ok(LISTENER_LIMITS_DEFAULT.idleMs >= 65_000);
  });

  it("responds with 408 to an HTTP/1.1 head or body that does not end", async (t) => {
    const checking = { connectionsCheckingIntervalMs: 10 };
    const shortHead = await open(t, { limits: { headersMs: SHORT_MS, requestMs: 60_000, ...checking } });
    const shortBody = await open(t, { limits: { requestMs: SHORT_MS, ...checking } });
    const partOfBody = "POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc";
    const patient = await Client.open(t, shortHead.port);
    patient.socket.write(partOfBody);
    const head = await Client.open(t, shortHead.port);
    head.socket.write("GET /hello HTTP/1.1\r\nHost: a\r\n");
    const body = await Client.open(t, shortBody.port);
    body.socket.write(partOfBody);
    for (const client of [head, body]) {
      await client.closed;
      assert.match(
        client.text(),
        /^HTTP\/1.1 408 Request Timeout\r\n.*Connection: close\r\n.*did not arrive in time/s,
      );
    }
    assert.equal(patient.text(), "", "the head has less time than the body");
    for (const listener of [shortHead, shortBody]) {
      assert.deepEqual(
        listener.lines.map((line) => line.msg.replace(/^.*\((\w+)\)$/, "$1")),
        ["ERR_HTTP_REQUEST_TIMEOUT"],
      );
      await assertServing(t, listener);
    }
  });

  it("resets an HTTP/2 stream whose body does not end, except on long-lived paths", async (t) => {
    const listener = await open(t, { limits: { requestMs: SHORT_MS, connectionsCheckingIntervalMs: 10 } });
    const client = session(t, listener.port);
    const long = client.request({ ":path": "/long/hello", ":method": "POST" }, { endStream: false });
    const answered = answerOf(long);
    for (let each = 0; each < 3; each++) {
      const slow = client.request({ ":path": "/hello", ":method": "POST" }, { endStream: false });
      slow.write("abc");
      assert.equal(await resetOf(slow), constants.NGHTTP2_CANCEL);
    }
    long.end("abc");
    assert.equal((await answered).body, "hello after 3 bytes over 2.0");
    assert.equal(listener.lines.length, 1);
  });

  it("does not time out a request that has arrived but is not read yet", async (t) => {
    const listener = await open(t, { limits: { requestMs: SHORT_MS, connectionsCheckingIntervalMs: 10 } });
    const client = session(t, listener.port);
    const whole = client.request({ ":path": "/hold", ":method": "POST" });
    whole.end("abc");
    const answered = answerOf(whole);
    const { res } = await nextHeld(listener);
    const slow = client.request({ ":path": "/hold", ":method": "POST" }, { endStream: false });
    assert.equal(await resetOf(slow), constants.NGHTTP2_CANCEL);
    res.end("held");
    assert.equal((await answered).body, "held");
  });

  it("closes responses that do not end, except on long-lived paths", async (t) => {
    const listener = await open(t, { limits: { responseMs: SHORT_MS, connectionsCheckingIntervalMs: 10 } });
    const client = session(t, listener.port);
    const long2 = answerOf(client.request({ ":path": "/long/hold?all" }).on("error", () => undefined));
    long2.catch(() => undefined);
    const long1 = ask1(listener.port, "/long/stream");
    await nextHeld(listener, 1);
    const reset = await resetOf(client.request({ ":path": "/stream" }));
    assert.equal(reset, constants.NGHTTP2_CANCEL);
    await assert.rejects(ask1(listener.port, "/hold"), { code: "ECONNRESET" });
    for (const { req, res } of listener.held) if (req.url?.startsWith("/long")) res.end();
    assert.equal((await long1).status, 200);
    assert.equal(listener.lines.length, 2);
  });

  it("does not time out requests that are complete or were cancelled", async (t) => {
    const timeMs = 2 * PATIENT_MS;
    const limits = { requestMs: timeMs, responseMs: timeMs, firstByteMs: timeMs + 100 };
    const listener = await open(t, { limits: { ...limits, connectionsCheckingIntervalMs: 10 } });
    const agent = new Agent({ keepAlive: true });
    t.after(() => agent.destroy());
    assert.equal((await ask1(listener.port, "/hello", {}, agent)).status, 200);
    const client = session(t, listener.port);
    assert.equal((await ask2(client, "/hello")).status, 200);
    assert.equal((await ask2(client, "/hello", { ":method": "HEAD" })).status, 200);
    const post = client.request({ ":path": "/hello", ":method": "POST" });
    post.end("abc");
    assert.equal((await answerOf(post)).body, "hello after 3 bytes over 2.0");
    const left = client.request({ ":path": "/hold", ":method": "POST" }, { endStream: false });
    await nextHeld(listener);
    left.close(constants.NGHTTP2_CANCEL);
    await resetOf(left);
    await (await Client.open(t, listener.port)).closed;
    assert.equal((await ask1(listener.port, "/hello", {}, agent)).status, 200);
    assert.deepEqual(
      listener.lines.map((line) => line.msg.replace(/^.*failed: /, "")),
      [`no request began within ${limits.firstByteMs} ms`],
    );
  });
});

describe("limits", { concurrency: true }, () => {
  it("closes the connection over the limit at once, and accepts a new one after another closed", async (t) => {
    const listener = await open(t, { limits: { connectionsMax: 2 } });
    const first = await Client.open(t, listener.port);
    const second = session(t, listener.port);
    assert.equal((await ask2(second, "/hello")).status, 200);
    const third = await Client.open(t, listener.port);
    await third.closed;
    assert.equal(listener.connections(), 2);
    assert.match(listener.lines[0]?.msg ?? "", /refused: 2 are open$/);
    first.socket.destroy();
    await until(() => listener.connections() === 1, "the first one is closed");
    assert.equal((await ask1(listener.port, "/hello")).status, 200);
    assert.equal(listener.lines.length, 1);
  });

  it("responds to pipelined requests up to the limit, and closes a connection that exceeds it", async (t) => {
    const listener = await open(t, { limits: { pipelinedMax: 3 } });
    const within = await Client.open(t, listener.port);
    within.socket.write(HELLO_1.repeat(3));
    await until(() => within.text().match(/hello after/g)?.length === 3, "all three are answered");
    const beyond = await Client.open(t, listener.port);
    beyond.socket.write("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100));
    await beyond.closed;
    assert.equal(listener.held.length, 3);
    assert.match(listener.lines[0]?.msg ?? "", /more than 3 pipelined requests are open$/);
    assert.equal(listener.lines.length, 1);
    await assertServing(t, listener);
  });

  it("closes the connection over the limit of one client, and accepts those of others", async (t) => {
    const listener = await open(t, {
      limits: { connectionsPerNetworkMax: 2 },
      networkOf: (address) => (address === "127.0.0.1" ? "one client" : undefined),
    });
    const [first] = [await Client.open(t, listener.port), await Client.open(t, listener.port)];
    await (await Client.open(t, listener.port)).closed;
    const other = new Client(connect({ port: listener.port, host: HOST, localAddress: "127.0.0.2" }));
    t.after(() => other.socket.destroy());
    other.socket.write(HELLO_1);
    await until(() => other.text().includes("hello"), "another client is answered");
    first.socket.destroy();
    await until(() => listener.connections() === 2, "the first one is closed");
    assert.equal((await ask1(listener.port, "/hello")).status, 200);
    assert.match(listener.lines[0]?.msg ?? "", /2 connections from one client are open$/);
  });

  it("closes the connections with the most unread bytes, over both protocols, and keeps the others", async (t) => {
    const limits = { unreadBytesMax: 500_000, unreadCheckingIntervalMs: 10 };
    const listener = await open(t, { limits });
    const small = session(t, listener.port, { settings: { initialWindowSize: 0 } });
    const kept = answerOf(small.request({ ":path": "/hold" }));
    (await nextHeld(listener, 1)).res.end("kept");
    const large = session(t, listener.port, { settings: { initialWindowSize: 0 } });
    const reset2 = resetOf(large.request({ ":path": "/hold" }));
    (await nextHeld(listener, 2)).res.end(Buffer.alloc(600_000));
    await reset2;
    const over1 = await Client.open(t, listener.port);
    over1.socket.pause();
    over1.socket.write(HELLO_1.replace("/hello", "/hold"));
    (await nextHeld(listener, 3)).res.end(Buffer.alloc(20_000_000));
    await until(() => listener.connections() === 1, "both are closed");
    small.settings({ initialWindowSize: 65_535 });
    assert.equal((await kept).body, "kept");
    assert.match(
      listener.lines[0]?.msg ?? "",
      /closed: \d+ unread response bytes; total exceeds unreadBytesMax \(500000\)$/,
    );
  });

  it("logs ten failed connections a second, and the number of further ones", async (t) => {
    const listener = await open(t);
    const clients = await Promise.all(Array.from({ length: 40 }, () => Client.open(t, listener.port)));
    for (const client of clients) client.socket.write("no HTTP\r\n\r\n");
    await Promise.all(clients.map((client) => client.closed));
    const lines = listener.lines.filter(({ level }) => level >= 30).length;
    assert.ok(lines >= 10 && lines < 40, `${lines} lines`);
  });

  it("refuses an HTTP/1.1 head that is too large or has too many fields with 431", async (t) => {
    const listener = await open(t, { limits: { headerBytesMax: 2_000, headerPairsMax: 10 } });
    assert.equal((await ask1(listener.port, "/hello", fields(1, 3_000))).status, 431);
    assert.equal((await ask1(listener.port, "/hello", fields(40, 1))).status, 431);
    assert.equal((await ask1(listener.port, "/hello", fields(9, 1))).status, 431);
    assert.equal((await ask1(listener.port, "/hello", fields(8, 1))).status, 200);
    const upload = await Client.open(t, listener.port);
    upload.socket.write(`GET / HTTP/1.1\r\nX: ${"a".repeat(1_000_000)}`);
    await upload.closed;
    assert.match(upload.text(), /^HTTP\/1.1 431 /);
  });

  it("refuses an HTTP/2 head that is too large or has too many fields, and keeps the session", async (t) => {
    const listener = await open(t, { limits: { headerBytesMax: 2_000, headerPairsMax: 10 } });
    const client = session(t, listener.port);
    await once(client, "remoteSettings");
    for (const headers of [fields(1, 3_000), fields(40, 1), fields(7, 1)]) {
      const reset = await resetOf(client.request({ ":path": "/hello", ...headers }));
      assert.equal(reset, constants.NGHTTP2_ENHANCE_YOUR_CALM);
    }
    assert.equal((await ask2(client, "/hello", fields(6, 1))).status, 200);
    assert.deepEqual(listener.lines, []);
  });

  it("refuses the stream over the limit and answers the others", async (t) => {
    const listener = await open(t, { limits: { streamsPerConnectionMax: 2 } });
    const client = await Client.open(t, listener.port);
    const requests = [1, 3, 5].map((stream) => requestFrame(stream, "/hold"));
    client.socket.write(Buffer.concat([PREFACE, SETTINGS, ...requests]));
    await until(() => client.has(FRAME.reset, 5), "the third stream is refused");
    for (const { res } of listener.held) res.end("held");
    await until(() => client.has(FRAME.data, 1) && client.has(FRAME.data, 3), "the others are answered");
    assert.equal(listener.held.length, 2);
  });

  it("announces its limits in SETTINGS", async (t) => {
    const { port } = await open(t);
    const [settings] = await once(session(t, port), "remoteSettings");
    assert.equal(settings.maxConcurrentStreams, 100);
    assert.equal(settings.maxHeaderListSize, 16_384);
  });

  it("closes a session that exceeds the rate of stream resets", async (t) => {
    const listener = await open(t, { limits: { streamResetBurst: 10, streamResetRate: 1 } });
    const client = await Client.open(t, listener.port);
    client.socket.write(Buffer.concat([PREFACE, SETTINGS]));
    const cancel = Buffer.of(0, 0, 0, 8);
    for (let stream = 1; stream < 100; stream += 2) {
      client.socket.write(requestFrame(stream, "/hold"));
      client.socket.write(frame(FRAME.reset, 0, stream, cancel));
    }
    await client.closed;
    await assertServing(t, listener);
  });

  it("closes a session that exceeds the number of SETTINGS frames", async (t) => {
    const listener = await open(t, { limits: { settingsFramesMax: 3 } });
    const client = await Client.open(t, listener.port);
    client.socket.write(Buffer.concat([PREFACE, SETTINGS, SETTINGS, SETTINGS, requestFrame(1, "/hello")]));
    await until(() => client.text().includes("hello"), "three are accepted");
    client.socket.write(SETTINGS);
    await client.closed;
    assert.match(listener.lines[0]?.msg ?? "", /more than 3 SETTINGS frames$/);
  });

  it("closes a session that exceeds the rate of PING frames", async (t) => {
    const listener = await open(t, {
      limits: { pingsPerCheckMax: 3, connectionsCheckingIntervalMs: 60_000 },
    });
    const client = await Client.open(t, listener.port);
    const ping = frame(FRAME.ping, 0, 0, Buffer.alloc(8));
    client.socket.write(Buffer.concat([PREFACE, SETTINGS, ping, ping, ping, requestFrame(1, "/hello")]));
    await until(() => client.text().includes("hello"), "three are accepted");
    client.socket.write(ping);
    await client.closed;
    assert.match(listener.lines[0]?.msg ?? "", /more than 3 PING frames within 60000 ms$/);
  });

  function fields(count: number, length: number): Record<string, string> {
    return Object.fromEntries(Array.from({ length: count }, (_, each) => [`x-${each}`, "a".repeat(length)]));
  }
});

describe("misbehaving peers", { concurrency: true }, () => {
  it("closes connections that send garbage, logs at most one line for each, and keeps serving", async (t) => {
    const seed = randomInt(2 ** 31);
    t.diagnostic(`seed ${seed}`);
    const random = mulberry32(seed);
    const limits = { firstByteMs: 200, headersMs: 200, requestMs: 200, idleMs: 200, closeMs: 200 };
    const listener = await open(t, { limits: { ...limits, connectionsCheckingIntervalMs: 20 } });
    const starts = [
      "",
      "GET ",
      "POST /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
      PREFACE,
    ];
    starts.push(
      Buffer.concat([PREFACE, SETTINGS]),
      Buffer.concat([PREFACE, SETTINGS, requestFrame(1, "/hello")]),
    );
    const clients: Client[] = [];
    for (let each = 0; each < 120; each++) {
      const client = await Client.open(t, listener.port);
      clients.push(client);
      client.socket.write(starts[each % starts.length] ?? "");
      client.socket.write(Buffer.from(Array.from({ length: 1 + random() * 300 }, () => random() * 256)));
    }
    await Promise.all(clients.map((client) => client.closed));
    await until(() => listener.connections() === 0, `all are closed, seed ${seed}`);
    assert.ok(listener.lines.length <= clients.length, `${listener.lines.length} lines, seed ${seed}`);
    await assertServing(t, listener);
  });

  it("handles a TCP reset in the middle of a request and of the preface", async (t) => {
    const listener = await open(t);
    const undecided = await Client.open(t, listener.port);
    undecided.socket.write(PREFACE.subarray(0, 5));
    const over1 = await Client.open(t, listener.port);
    over1.socket.write("POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc");
    const over2 = await Client.open(t, listener.port);
    over2.socket.write(Buffer.concat([PREFACE, SETTINGS, requestFrame(1, "/hold", "POST")]));
    await nextHeld(listener, 2);
    over1.socket.resetAndDestroy();
    over2.socket.resetAndDestroy();
    undecided.socket.resetAndDestroy();
    await until(() => listener.connections() === 0, "all are closed");
    assert.deepEqual(
      listener.lines.map((line) => [line.level, line.msg.replace(/^.*\((\w+)\)$/, "$1")]),
      Array(3).fill([20, "ECONNRESET"]),
    );
    await assertServing(t, listener);
  });

  it("closes a session with a protocol error, and logs the reason", async (t) => {
    const listener = await open(t);
    const client = await Client.open(t, listener.port);
    client.socket.write(Buffer.concat([PREFACE, SETTINGS, frame(FRAME.data, 0, 0)]));
    await client.closed;
    assert.ok(client.has(FRAME.goaway));
    assert.deepEqual(
      listener.lines.map((line) => [line.level, line.msg.replace(/^.*failed: /, "")]),
      [[30, "Protocol error (ERR_HTTP2_ERROR)"]],
    );
  });

  it("responds with 400 when the handler throws, over both protocols, and logs it once per connection", async (t) => {
    const listener = await open(t);
    const over1 = await ask1(listener.port, "/throw");
    assert.deepEqual([over1.status, over1.body, over1.headers.connection], [400, UNPROCESSED, "close"]);
    assert.equal(over1.headers["x-left-over"], undefined);
    const client = session(t, listener.port);
    const over2 = [await ask2(client, "/throw"), await ask2(client, "/throw")];
    for (const answer of over2) assert.deepEqual([answer.status, answer.body], [400, UNPROCESSED]);
    assert.equal((await ask2(client, "/hello")).status, 200);
    assert.deepEqual(
      listener.lines.map((line) => [line.level, line.msg.replace(/^.*failed: /, "")]),
      Array(2).fill([40, "the handler threw on a request"]),
    );
  });

  it("aborts a started response when the handler throws", async (t) => {
    const listener = await open(t);
    await assert.rejects(ask1(listener.port, "/throw-late"));
    const late = session(t, listener.port).request({ ":path": "/throw-late" });
    assert.notEqual(await resetOf(late), constants.NGHTTP2_NO_ERROR);
    await assertServing(t, listener);
  });
});

describe("drain", { concurrency: true }, () => {
  it("completes open requests, announces the close over both protocols, and accepts no connections", async (t) => {
    const listener = await open(t);
    const agent = new Agent({ keepAlive: true });
    t.after(() => agent.destroy());
    const over1 = ask1(listener.port, "/hold", {}, agent);
    await nextHeld(listener, 1);
    const client = session(t, listener.port);
    const over2 = ask2(client, "/hold");
    await nextHeld(listener, 2);
    const goaway = once(client, "goaway");
    const drained = listener.drain(60_000);
    assert.equal(listener.drain(1), drained);
    assert.equal((await goaway)[0], constants.NGHTTP2_NO_ERROR);
    await assert.rejects(ask1(listener.port, "/hello"), { code: "ECONNREFUSED" });
    assert.equal(listener.connections(), 2);
    for (const { res } of listener.held) res.end("held");
    const answer = await over1;
    assert.deepEqual([answer.status, answer.body, answer.headers.connection], [200, "held", "close"]);
    assert.deepEqual([(await over2).status, (await over2).body], [200, "held"]);
    assert.deepEqual(await drained, { destroyed: 0 });
    assert.equal(listener.connections(), 0);
    assert.deepEqual(listener.lines, []);
  });

  it("closes connections that are idle or have sent nothing", async (t) => {
    const listener = await open(t);
    const silent = await Client.open(t, listener.port);
    const idle1 = await Client.open(t, listener.port);
    idle1.socket.write(HELLO_1);
    await until(() => idle1.text().includes("hello"), "it is answered");
    const idle2 = session(t, listener.port);
    assert.equal((await ask2(idle2, "/hello")).status, 200);
    const closed = once(idle2, "close");
    assert.deepEqual(await listener.drain(60_000), { destroyed: 0 });
    await Promise.all([silent.closed, idle1.closed, closed]);
  });

  it("closes an HTTP/1.1 connection whose response had started as keep-alive", async (t) => {
    const listener = await open(t);
    const client = await Client.open(t, listener.port);
    client.socket.write(HELLO_1.replace("/hello", "/stream"));
    await until(() => client.text().includes("begin"), "the response has started");
    const drained = listener.drain(60_000);
    (await nextHeld(listener)).res.end("end");
    assert.deepEqual(await drained, { destroyed: 0 });
    await client.closed;
    assert.match(client.text(), /keep-alive.*begin.*end/s);
  });

  it("names the last stream that it serves in GOAWAY, and serves no later one", async (t) => {
    const listener = await open(t);
    const client = await Client.open(t, listener.port);
    client.socket.write(Buffer.concat([PREFACE, SETTINGS, requestFrame(1, "/hold")]));
    const { res } = await nextHeld(listener);
    const drained = listener.drain(60_000);
    await until(() => client.has(FRAME.goaway), "GOAWAY arrived");
    client.socket.write(requestFrame(3, "/hold"));
    client.socket.write(frame(FRAME.ping, 0, 0, Buffer.alloc(8)));
    await until(() => client.has(FRAME.ping), "the PING after the late stream is answered");
    res.end("held");
    assert.deepEqual(await drained, { destroyed: 0 });
    await client.closed;
    const lastStreams = client.frames().filter(({ type }) => type === FRAME.goaway);
    assert.deepEqual(
      lastStreams.map(({ payload }) => payload.readUInt32BE(0)),
      lastStreams.map(() => 1),
    );
    assert.ok(client.has(FRAME.data, 1));
    assert.equal(listener.held.length, 1);
  });

  it("destroys the remaining connections at the deadline, counts them and logs each once", async (t) => {
    const listener = await open(t);
    const over1 = await Client.open(t, listener.port);
    over1.socket.write(HELLO_1.replace("/hello", "/hold"));
    const over2 = session(t, listener.port).request({ ":path": "/long/stream" });
    await nextHeld(listener, 2);
    const reset = resetOf(over2);
    assert.deepEqual(await listener.drain(SHORT_MS), { destroyed: 2 });
    await Promise.all([over1.closed, reset]);
    assert.equal(listener.connections(), 0);
    assert.equal(listener.lines.length, 2);
    for (const line of listener.lines) assert.match(line.msg, /open \d+ ms after the drain began/);
  });

  it("does not start on a port that is in use", async (t) => {
    const { port } = await open(t);
    const log = pino({ level: "silent" });
    await assert.rejects(startListener({ host: HOST, port, handler: () => undefined, log }), {
      code: "EADDRINUSE",
    });
  });
});

/** A seeded generator of numbers from 0 to 1. */
function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
