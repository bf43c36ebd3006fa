import assert from "node:assert/strict";
import { once } from "node:events";
import { Agent, request as requestHttp1 } from "node:http";
import { type ClientHttp2Session, connect as connectHttp2, type OutgoingHttpHeaders } from "node:http2";
import { connect as connectTcp } from "node:net";
import { text } from "node:stream/consumers";
import { after, before, describe, it } from "node:test";
import { create, type DescMessage, type MessageInitShape, toBinary, toJsonString } from "@bufbuild/protobuf";
import { type Client, createClient, type Transport } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import { Redis } from "ioredis";
import { BatchGetStockRequestSchema, StockService } from "../../gen/inventory/v1/stock_pb.ts";
import {
  AdjustStockRequestSchema,
  CountStockRequestSchema,
  DeleteProductRequestSchema,
  ListChangesRequestSchema,
  PutProductRequestSchema,
  SetSafetyStockRequestSchema,
  SupplyService,
} from "../../gen/inventory/v1/supply_pb.ts";
import { Inventory, InventoryRequestSchema } from "../../gen/inventory_pb.ts";
import { type AppProcess, startAppProcess } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";

const redis = need("redis-server");
const INT32_MAX = 2_147_483_647;
/** Requests in flight at a time. */
const CONCURRENCY = 16;
/** Far above any response time; it only ends a test that would hang. */
const RESPONSE_MS_MAX = 20_000;

/** Set FUZZ_SEED to the value that a failure printed to repeat its requests. */
const seed = Number(process.env["FUZZ_SEED"] ?? Math.floor(Math.random() * 2 ** 32));

/** Mulberry32 (Tommy Ettinger, public domain): small, and good enough to choose by. */
class Random {
  #state: number;

  constructor(state: number) {
    this.#state = state >>> 0;
  }

  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  below(bound: number): number {
    return Math.floor(this.next() * bound);
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(values: readonly T[]): T {
    const value = values[this.below(values.length)];
    assert.ok(value !== undefined);
    return value;
  }

  bytes(most: number): Buffer {
    return Buffer.from(Array.from({ length: this.below(most + 1) }, () => this.below(256)));
  }

  /** The bytes with one to four changes. */
  mutate(original: Buffer): Buffer {
    let bytes = Buffer.from(original);
    for (let changes = 1 + this.below(4); changes > 0; changes--) {
      const at = this.below(bytes.length + 1);
      const to = Math.min(bytes.length, at + this.below(9));
      const [head, middle, tail] = [bytes.subarray(0, at), bytes.subarray(at, to), bytes.subarray(to)];
      bytes = this.pick([
        () => Buffer.concat([head, tail]),
        () => Buffer.concat([head, middle, middle, tail]),
        () => Buffer.concat([head, this.bytes(8), tail]),
        () =>
          Buffer.concat([head, Buffer.alloc(middle.length, this.pick([0, 0x7f, 0x80, 0xff, 0x0a])), tail]),
        () => Buffer.concat([head, middle.map((byte) => byte ^ (1 << this.below(8))), tail]),
        () => head,
      ])();
    }
    return bytes;
  }
}

interface Sample {
  readonly path: string;
  readonly proto: Buffer;
  readonly json: string;
}

function sample<D extends DescMessage>(path: string, schema: D, init: MessageInitShape<D>): Sample {
  const message = create(schema, init);
  return { path, proto: Buffer.from(toBinary(schema, message)), json: toJsonString(schema, message) };
}

const PRODUCT = { name: "Linen Shirt", description: "washed", price: 65, collectionId: "spring" };
const AT = { seconds: 1_700_000_000n, nanos: 5 };
const SUPPLY = "/inventory.v1.SupplyService";
const SAMPLES: readonly Sample[] = [
  sample("/Inventory/Get", InventoryRequestSchema, { id: "fuzz-1" }),
  sample("/inventory.v1.StockService/BatchGetStock", BatchGetStockRequestSchema, {
    productIds: ["fuzz-1", "fuzz-2", "fuzz-3"],
  }),
  sample(`${SUPPLY}/PutProduct`, PutProductRequestSchema, {
    productId: "fuzz-1",
    declared: 300,
    product: PRODUCT,
    updateTime: AT,
  }),
  sample(`${SUPPLY}/DeleteProduct`, DeleteProductRequestSchema, { productId: "fuzz-3", updateTime: AT }),
  sample(`${SUPPLY}/CountStock`, CountStockRequestSchema, {
    productId: "fuzz-1",
    count: 9,
    countId: "count-1",
    expectedVersion: 1n,
    reason: "shelf",
  }),
  sample(`${SUPPLY}/AdjustStock`, AdjustStockRequestSchema, {
    productId: "fuzz-1",
    delta: -200,
    adjustmentId: "adjustment-1",
    reason: "broken",
  }),
  sample(`${SUPPLY}/SetSafetyStock`, SetSafetyStockRequestSchema, { productId: "fuzz-2", safety: 150 }),
  sample(`${SUPPLY}/ListChanges`, ListChangesRequestSchema, {
    productId: "fuzz-1",
    pageSize: 3,
    pageToken: "dmVyc2lvbjoz",
  }),
];
const TYPES = [
  "",
  "/",
  "text/plain",
  "application/json",
  "application/proto",
  "application/grpc",
  "*/*",
  "x;=;",
];
const GRPC_TYPES = ["application/grpc", "application/grpc+proto"];
const GRPC_WEB_TYPES = ["application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text"];
const TIMEOUTS = ["1S", "0n", "-1S", "1", "S", "99999999999S", "1e3m", "1n"];
const ENCODINGS = ["gzip", "identity", "br", "x", "gzip,br"];

/** An enveloped message whose prefix may be wrong. */
function envelope(random: Random, message: Buffer): Buffer {
  const prefix = Buffer.alloc(5);
  prefix[0] = random.chance(0.3) ? random.pick([1, 2, 0x80, 0xff]) : 0;
  const lengths = [0, 1, message.length - 1, message.length + 1, 2 ** 24, 2 ** 31, 2 ** 32 - 1];
  prefix.writeUInt32BE(Math.max(0, random.chance(0.5) ? random.pick(lengths) : message.length), 1);
  const single = Buffer.concat([prefix, message]);
  return random.chance(0.1) ? Buffer.concat([single, single]) : single;
}

/** Makes `count` requests, `CONCURRENCY` at a time, each with its own seed, so that timing does not change them. */
async function fire(salt: number, count: number, make: (random: Random) => Promise<void>): Promise<void> {
  let made = 0;
  const worker = async (): Promise<void> => {
    while (made < count) {
      made += 1;
      const own = (seed ^ Math.imul(salt * 100_003 + made, 0x9e3779b1)) >>> 0;
      await make(new Random(own)).catch((cause) => {
        throw new Error(`with FUZZ_SEED=${seed}, request ${made} of kind ${salt}`, { cause });
      });
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, worker));
}

describe("malformed bytes", { timeout: 6 * RESPONSE_MS_MAX }, () => {
  let store: RedisServer | undefined;
  let app: AppProcess;
  let pid = 0;
  const agent = new Agent({ keepAlive: true, maxSockets: CONCURRENCY });
  before(async () => {
    store = redis.missing ? undefined : await startRedis();
    app = await startAppProcess({ LOG_LEVEL: "debug", ...(store && { REDIS_URL: store.url }) });
    pid = app.process().pid;
    const supply = createClient(
      SupplyService,
      createConnectTransport({ baseUrl: app.url, httpVersion: "1.1" }),
    );
    for (const productId of ["fuzz-1", "fuzz-2"]) {
      await supply.putProduct({ productId, declared: 1_000, product: PRODUCT, updateTime: { seconds: 1n } });
    }
  });
  after(async () => {
    agent.destroy();
    await app?.stop();
    await store?.stop();
  });

  /** Sends bytes on a connection of their own, and waits until the server has closed it. */
  async function sendRaw(chunks: readonly Buffer[]): Promise<void> {
    const socket = connectTcp({ port: app.port, host: "127.0.0.1", noDelay: true });
    socket.on("error", () => {});
    socket.setTimeout(RESPONSE_MS_MAX, () => socket.destroy());
    for (const chunk of chunks) {
      socket.write(chunk);
    }
    socket.end();
    socket.resume();
    let timedOut = false;
    socket.once("timeout", () => {
      timedOut = true;
    });
    // Not by events.once, which rejects when the server resets.
    await new Promise((resolve) => socket.once("close", resolve));
    assert.ok(!timedOut, "the server neither responds nor closes");
  }

  async function sendHttp1(
    method: string,
    path: string,
    headers: OutgoingHttpHeaders,
    body: Buffer,
  ): Promise<{ status: number; text: string }> {
    const signal = AbortSignal.timeout(RESPONSE_MS_MAX);
    const request = requestHttp1({ port: app.port, host: "127.0.0.1", agent, method, path, headers, signal });
    request.end(body);
    const [response] = await once(request, "response");
    return { status: Number(response.statusCode), text: await text(response) };
  }

  /** A malformed request must not become an internal error. */
  function assertResponded({ status, text }: { status: number; text: string }, request: string): void {
    assert.ok(status >= 200 && status < 600, `${request}: ${status}`);
    assert.doesNotMatch(text, /Internal server error/, request);
  }

  /** The status and gRPC status of the response; neither where the server reset the stream. */
  async function sendHttp2(session: ClientHttp2Session, headers: OutgoingHttpHeaders, body: Buffer) {
    const result: { status?: unknown; grpcStatus?: unknown } = {};
    const stream = session.request(headers);
    stream.on("error", () => {});
    stream.setTimeout(RESPONSE_MS_MAX, () => stream.destroy());
    stream.on("response", (response) => {
      result.status = response[":status"];
      result.grpcStatus = response["grpc-status"];
    });
    stream.on("trailers", (trailers) => {
      result.grpcStatus = trailers["grpc-status"];
    });
    stream.end(body);
    stream.resume();
    await new Promise<void>((resolve) => {
      stream.once("close", resolve);
    });
    return result;
  }

  async function withSession(use: (session: ClientHttp2Session) => Promise<void>): Promise<void> {
    const session = connectHttp2(app.url);
    session.on("error", () => {});
    try {
      await use(session);
    } finally {
      session.destroy();
    }
  }

  it("on HTTP/1.1", async (t) => {
    t.diagnostic(`FUZZ_SEED=${seed}`);
    await fire(1, 1_000, async (random) => {
      const { path, json } = random.pick(SAMPLES);
      const text =
        `POST ${path} HTTP/1.1\r\nHost: ${app.address}\r\nContent-Type: ${random.pick(TYPES)}\r\n` +
        (random.chance(0.3)
          ? `Transfer-Encoding: chunked\r\n\r\n${json.length.toString(16)}\r\n${json}\r\n0\r\n\r\n`
          : `Content-Length: ${json.length}\r\n\r\n${json}`);
      const bytes = random.chance(0.1) ? random.bytes(400) : random.mutate(Buffer.from(text));
      const cut = random.below(bytes.length + 1);
      await sendRaw([bytes.subarray(0, cut), bytes.subarray(cut)]);
    });
  });

  it("on HTTP/2 frames", async () => {
    const frame = (type: number, flags: number, stream: number, payload: Buffer): Buffer => {
      const head = Buffer.alloc(9);
      head.writeUIntBE(payload.length, 0, 3);
      head.writeUInt8(type, 3);
      head.writeUInt8(flags, 4);
      head.writeUInt32BE(stream, 5);
      return Buffer.concat([head, payload]);
    };
    const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    // POST http / by the static table of HPACK (RFC 7541, appendix A).
    const headers = frame(1, 4, 1, Buffer.from([0x83, 0x86, 0x84, 0x41, 1, 0x61]));
    await fire(2, 500, async (random) => {
      const frames = [frame(4, 0, 0, Buffer.alloc(0)), headers, frame(0, 1, 1, random.bytes(20))];
      for (let more = random.below(5); more > 0; more--) {
        const [type, flags] = [random.below(12), random.below(256)];
        frames.push(frame(type, flags, random.below(4), random.bytes(30)));
      }
      const bytes = Buffer.concat(frames);
      const body = random.chance(0.7) ? random.mutate(bytes) : bytes;
      await sendRaw([random.chance(0.1) ? random.mutate(preface) : preface, body]);
    });
  });

  it("on HTTP/2 requests: methods, paths, headers and bodies", async () => {
    await fire(3, 50, (outer) =>
      withSession(async (session) => {
        for (let left = 12; left > 0; left--) {
          const random = new Random(outer.below(2 ** 32));
          const { path, proto } = random.pick(SAMPLES);
          const headers: OutgoingHttpHeaders = {
            ":method": random.pick(["POST", "GET", "PUT", "OPTIONS", "HEAD", "BREW"]),
            ":path": random.chance(0.5) ? path : `/${random.mutate(Buffer.from(path)).toString("hex")}`,
            ":authority": random.pick([app.address, "[", "a b", "", "a:b:c"]),
            "content-type": random.pick(TYPES),
            [`x-${random.below(99)}`]: random.bytes(20).toString("base64"),
          };
          if (headers[":method"] === "POST" && random.chance(0.3)) {
            headers["content-encoding"] = random.pick(ENCODINGS);
          }
          const hasBody = headers[":method"] === "POST" || headers[":method"] === "PUT";
          const result = sendHttp2(session, headers, hasBody ? random.mutate(proto) : Buffer.alloc(0));
          if (random.chance(0.05)) {
            session.destroy();
            return;
          }
          await result;
        }
      }),
    );
  });

  it("in gRPC's framing", async () => {
    await fire(4, 60, (outer) =>
      withSession(async (session) => {
        for (let left = 12; left > 0; left--) {
          const random = new Random(outer.below(2 ** 32));
          const { path, proto } = random.pick(SAMPLES);
          const headers: OutgoingHttpHeaders = {
            ":method": "POST",
            ":path": path,
            "content-type": random.pick(GRPC_TYPES),
            te: "trailers",
          };
          if (random.chance(0.2)) headers["grpc-timeout"] = random.pick(TIMEOUTS);
          if (random.chance(0.2)) headers["grpc-encoding"] = random.pick(ENCODINGS);
          const message = random.chance(0.7) ? random.mutate(proto) : proto;
          const { status, grpcStatus } = await sendHttp2(session, headers, envelope(random, message));
          assert.equal(status, 200);
          assert.match(String(grpcStatus), /^([0-9]|1[0-6])$/, "every gRPC call ends with a status");
        }
      }),
    );
  });

  it("in gRPC-Web's framing", async () => {
    await fire(5, 600, async (random) => {
      const { path, proto } = random.pick(SAMPLES);
      const framed = envelope(random, random.chance(0.7) ? random.mutate(proto) : proto);
      const type = random.pick(GRPC_WEB_TYPES);
      const body = type.endsWith("-text") ? Buffer.from(framed.toString("base64")) : framed;
      const { status } = await sendHttp1("POST", path, { "content-type": type, "x-grpc-web": "1" }, body);
      assert.ok([200, 415].includes(status), `${type}: ${status}`);
    });
  });

  it("in Connect's JSON, proto and query", async () => {
    await fire(6, 900, async (random) => {
      const { path, proto, json } = random.pick(SAMPLES);
      const isJson = random.chance(0.6);
      const codec = isJson ? "json" : "proto";
      const message = random.mutate(isJson ? Buffer.from(json) : proto);
      if (random.chance(0.3)) {
        const parameters = [
          `connect=${random.pick(["v1", "v2", ""])}`,
          `encoding=${random.pick([codec, codec, "x"])}`,
          `base64=${random.pick(["1", "1", "0"])}`,
          `message=${random.pick([message.toString("base64url"), encodeURIComponent(message.toString())])}`,
          `compression=${random.pick(["", ...ENCODINGS])}`,
          `%${random.below(100)}=%`,
        ];
        const query = parameters.filter(() => random.chance(0.8)).join("&");
        const request = `${path}?${query}`;
        assertResponded(await sendHttp1("GET", request, {}, Buffer.alloc(0)), request);
        return;
      }
      const headers: OutgoingHttpHeaders = { "content-type": `application/${codec}` };
      if (random.chance(0.2)) headers["content-encoding"] = random.pick(ENCODINGS);
      if (random.chance(0.2))
        headers["connect-timeout-ms"] = random.pick(["1000", "-1", "x", "1e3", "99999999999"]);
      if (random.chance(0.2)) headers["connect-protocol-version"] = random.pick(["1", "2", "x"]);
      assertResponded(await sendHttp1("POST", path, headers, message), `${path} ${message.toString("hex")}`);
    });
  });

  it("leave the process running and serving every protocol", async () => {
    assert.equal(app.process().pid, pid);
    assert.ok(app.process().running(), app.process().describe());
    const baseUrl = app.url;
    const transports: readonly Transport[] = [
      createGrpcTransport({ baseUrl }),
      createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
      createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: false }),
      createConnectTransport({ baseUrl, httpVersion: "1.1", useHttpGet: true }),
    ];
    for (const [index, transport] of transports.entries()) {
      const productId = `after-${index}`;
      await createClient(SupplyService, transport).putProduct({ productId, declared: index });
      const client: Client<typeof Inventory> = createClient(Inventory, transport);
      assert.equal((await client.get({ id: productId })).count, String(index));
    }
    const output = await app.output();
    assert.doesNotMatch(output, /uncaught|unhandled/i);
    const faults = output.split("\n").filter((line) => /^\{"level":[56]0/.test(line));
    assert.deepEqual(faults, [], "no error of the server was logged");
    const unstructured = output.split("\n").filter((line) => line !== "" && !line.startsWith('{"level":'));
    assert.ok(
      unstructured.every((line) => !/^\s+at /.test(line)),
      unstructured.join("\n"),
    );
  });

  it("left only valid data in the store", { skip: redis.missing }, async () => {
    const client = new Redis(store?.url ?? "");
    const sets = await client.keys("{b*}:products");
    const products = (await Promise.all(sets.map((key) => client.smembers(key)))).flat();
    client.disconnect();
    assert.ok(products.length >= 2);
    const transport = createConnectTransport({ baseUrl: app.url, httpVersion: "1.1" });
    const supply = createClient(SupplyService, transport);
    const stock = createClient(StockService, transport);
    for (const productId of products) {
      const bytes = Buffer.byteLength(productId);
      assert.ok(bytes >= 1 && bytes <= 128 && !/\p{Cc}/u.test(productId), JSON.stringify(productId));
      const { ledger } = await supply.getLedger({ productId });
      assert.ok(ledger);
      const { declared, adjusted, sold, reserved, safety, onHand, available } = ledger;
      assert.ok(declared >= 0 && safety >= 0, JSON.stringify(productId));
      assert.equal(onHand, Math.min(INT32_MAX, declared + adjusted - sold));
      assert.equal(available, Math.max(0, onHand - reserved - safety));
    }
    const { stocks } = await stock.batchGetStock({ productIds: products.slice(0, 1_000) });
    for (const { product } of stocks) {
      const { name = "", description = "", price = 0, collectionId = "" } = product ?? {};
      assert.ok(Buffer.byteLength(name) <= 512 && Buffer.byteLength(description) <= 16_384);
      assert.ok(price >= 0 && price <= 1e12);
      assert.ok(Buffer.byteLength(collectionId) <= 128 && !/\p{Cc}/u.test(collectionId));
    }
  });

  it("left no connection open that the drain must close", async () => {
    agent.destroy();
    await app.process().end("SIGTERM", RESPONSE_MS_MAX);
    const [ending] = app.process().describe().split(";");
    assert.match(ending ?? "", /exit code 0/);
    const cut = (await app.output()).split("\n").filter((line) => line.includes("end of the drain deadline"));
    assert.deepEqual(cut, []);
  });
});
