import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { after, before, describe, it } from "node:test";
import type { JsonValue } from "@bufbuild/protobuf";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import type { WatchLimits } from "../../server/live/watch/watch-limits.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { until } from "../support/until.ts";
import { mulberry32, mutate } from "./parity-mutations.ts";
import {
  comparable,
  type Dialect,
  envelope,
  STREAM_DIALECTS,
  WireClient,
  type WireRequest,
  type WireResponse,
  wireRequest,
} from "./parity-wire.ts";

const MUTATIONS = 400;
const AT_ONCE = 20;
const SEED = Number(process.env["PARITY_SEED"] ?? randomInt(2 ** 31));
const { watchStock } = StockService.method;
const ORIGIN = "https://shop.example";
/** More than a message of a watch may have. */
const PRODUCTS = 40;
const LONG_TEXT = "y".repeat(700);

/** Watches end soon, with their last message, so that each response is complete. */
const SHORT_LIFE: Partial<WatchLimits> = { lifetimeMs: 20, reconnectSpreadMs: 2_000 };

/** Two servers with the same products: one with the fast path, one with the Connect path only. */
class Pair implements AsyncDisposable {
  /** Responses whose headers have arrived. */
  headsCount = 0;
  readonly #servers: readonly { readonly app: TestApp; readonly client: WireClient }[];

  private constructor(apps: readonly TestApp[]) {
    this.#servers = apps.map((app) => ({ app, client: new WireClient(app.port) }));
  }

  static async start(watchLimits: Partial<WatchLimits>): Promise<Pair> {
    const apps = await Promise.all(
      ["on", "off"].map((LANE) => startTestApp({ LANE, EMBED_ORIGINS: ORIGIN }, { watchLimits })),
    );
    await Promise.all(apps.map(stock));
    return new Pair(apps);
  }

  async responses(dialect: Dialect, request: WireRequest): Promise<readonly [WireResponse, WireResponse]> {
    const [fast, connect] = await Promise.all(
      this.#servers.map(({ client }) =>
        client.call(dialect.isHttp2, request, () => {
          this.headsCount += 1;
        }),
      ),
    );
    assert.ok(fast && connect);
    return [fast, connect];
  }

  /** Asserts that both responses are equal, and returns their comparable form. */
  async assertEqual(dialect: Dialect, request: WireRequest, what: string): Promise<unknown> {
    const [fast, connect] = await this.responses(dialect, request);
    const result = comparable(dialect, watchStock, fast);
    assert.deepEqual(result, comparable(dialect, watchStock, connect), `${dialect.name}: ${what}`);
    return result;
  }

  async stop(): Promise<void> {
    await Promise.all(this.#servers.map(({ app }) => app.stop()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { client } of this.#servers) {
      client.close();
    }
    await this.stop();
  }
}

async function stock(app: TestApp): Promise<void> {
  for (let n = 0; n < PRODUCTS; n++) {
    const product = { name: `Ärmel ${n}`, description: LONG_TEXT, price: n / 8, collectionId: "c" };
    const response = await fetch(new URL("/inventory.v1.SupplyService/PutProduct", app.url), {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ productId: `p${n}`, declared: n, product }),
    });
    assert.equal(response.status, 200, await response.text());
  }
  await until(async () => {
    const response = await fetch(new URL("/inventory.v1.StockService/ListStock", app.url), {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{}",
    });
    return ((await response.json()) as { totalSize?: number }).totalSize === PRODUCTS;
  }, "the server has all products");
}

const CASES: readonly (readonly [string, JsonValue, RegExp])[] = [
  ["every product, in pages", {}, /"p0".*"lastOfSnapshot":true.*"reconnectAfter"/],
  [
    "known and unknown ones",
    { productIds: ["p1", "no – ünknown", "p3"] },
    /"removedProductIds":\["no – ünknown"\]/,
  ],
  ["an empty ID", { productIds: ["p1", ""] }, /product_ids\[1\]/],
  ["a control character", { productIds: ["a\u0007"] }, /product_ids\[0\]/],
  ["too many IDs", { productIds: Array.from({ length: 1_001 }, (_, n) => `p${n}`) }, /1001 entries/],
  ["a long interval", { minInterval: "11s" }, /min_interval/],
];

const request = (dialect: Dialect, json: JsonValue, headers: Record<string, string> = {}): WireRequest => {
  const plain = wireRequest(dialect, watchStock, json);
  return { ...plain, headers: { ...plain.headers, ...headers } };
};

const versionOf = ({ isHttp2 }: Dialect): string => (isHttp2 ? "HTTP/2" : "HTTP/1.1");

/** Headers by which a client accepts compressed messages. */
const ACCEPT = { "grpc-accept-encoding": "gzip", "connect-accept-encoding": "gzip" };

describe("watches on the fast path and the Connect path", { timeout: 60_000 }, () => {
  let pair: Pair;
  before(async () => {
    pair = await Pair.start(SHORT_LIFE);
  });
  after(() => pair[Symbol.asyncDispose]());

  for (const dialect of STREAM_DIALECTS) {
    it(`have equal responses in ${dialect.name} over ${versionOf(dialect)}`, async () => {
      for (const [what, json, sign] of CASES) {
        const result = await pair.assertEqual(dialect, request(dialect, json), what);
        assert.match(JSON.stringify(result), sign, what);
      }
      for (const origin of [ORIGIN, "https://other.example"]) {
        const result = await pair.assertEqual(dialect, request(dialect, {}, { origin }), origin);
        assert.equal(JSON.stringify(result).includes("access-control-allow-origin"), origin === ORIGIN);
        await pair.assertEqual(
          dialect,
          request(dialect, { productIds: [""] }, { origin }),
          `refused, ${origin}`,
        );
      }
    });
  }

  it("have equal responses where the request is not one complete uncompressed message", async () => {
    for (const dialect of STREAM_DIALECTS) {
      const whole = request(dialect, { productIds: ["p1"] });
      const flagged = (flags: number): Buffer => envelope(whole.body.subarray(5), flags);
      const bodies = {
        empty: Buffer.alloc(0),
        "half an envelope": whole.body.subarray(0, 7),
        "two messages": Buffer.concat([whole.body, whole.body]),
        "flagged as compressed": flagged(1),
        "flagged as the end of the stream": flagged(2),
        "flagged as trailers": flagged(128),
        "no message": envelope(Buffer.from([0xff])),
        "over the limit": envelope(Buffer.alloc(1_048_577)),
      };
      for (const [what, body] of Object.entries(bodies)) {
        await pair.assertEqual(dialect, { ...whole, body }, what);
      }
    }
  });

  it("differ in compression: only the Connect path compresses messages", async () => {
    // The fast path handles neither JSON in gRPC and gRPC-Web, nor base64.
    const plain = STREAM_DIALECTS.filter(({ contentType }) => !/grpc.*json|-text/.test(contentType));
    for (const dialect of plain) {
      const accepting = request(dialect, {}, ACCEPT);
      const results = await pair.responses(dialect, accepting);
      const isPlain = results.map(({ body }) => body.includes(LONG_TEXT));
      assert.deepEqual(isPlain, [true, false], `${dialect.name} over ${versionOf(dialect)}`);
    }
  });

  it(`have equal responses to ${MUTATIONS} mutated requests`, async (t) => {
    t.diagnostic(`PARITY_SEED=${SEED}`);
    const random = mulberry32(SEED);
    const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)] as T;
    const mutated = Array.from({ length: MUTATIONS }, () => {
      const dialect = pick(STREAM_DIALECTS);
      const [what, json] = pick(CASES);
      return { dialect, what, request: mutate(request(dialect, json), random) };
    });
    for (let n = 0; n < MUTATIONS; n += AT_ONCE) {
      await Promise.all(
        mutated.slice(n, n + AT_ONCE).map(({ dialect, what, request }, index) => {
          const bytes = request.body.toString("hex").slice(0, 200);
          const mutation = `PARITY_SEED=${SEED} mutation ${n + index}: ${what}`;
          return pair.assertEqual(
            dialect,
            request,
            `${mutation} ${JSON.stringify(request.headers)} ${bytes}`,
          );
        }),
      );
    }
  });
});

describe("ends of watches on the fast path and the Connect path", { timeout: 60_000 }, () => {
  const everyDialect = (run: (dialect: Dialect) => Promise<void>): Promise<unknown> =>
    Promise.all(STREAM_DIALECTS.map(run));

  it("are equal above the limit of watches, with a retry delay", async () => {
    await using pair = await Pair.start({ watchesMax: 0 });
    await everyDialect(async (dialect) => {
      const result = JSON.stringify(await pair.assertEqual(dialect, request(dialect, {}), "limit"));
      assert.match(result, /0 watches are open on this server/);
      assert.match(result, /RetryInfo/);
    });
  });

  it("are equal at the deadline, after the snapshot", async () => {
    await using pair = await Pair.start({});
    await everyDialect(async (dialect) => {
      const accepting = request(
        dialect,
        { productIds: ["p1"] },
        { "grpc-timeout": "3S", "connect-timeout-ms": "3000" },
      );
      const result = JSON.stringify(await pair.assertEqual(dialect, accepting, "deadline"));
      assert.match(
        result,
        /"lastOfSnapshot":true.*(grpc-status: 4|deadline_exceeded)|grpc-status: 4.*"lastOfSnapshot":true/,
      );
    });
  });

  it("are equal when the server stops: a last message, and OK", async () => {
    await using pair = await Pair.start({});
    const watching = everyDialect(async (dialect) => {
      const result = JSON.stringify(await pair.assertEqual(dialect, request(dialect, {}), "drain"));
      assert.match(result, /"reconnectAfter":"SOON"/);
      assert.match(result, /grpc-status: 0|"end":\{\}/);
    });
    await until(() => pair.headsCount === 2 * STREAM_DIALECTS.length, "all watches are open");
    await pair.stop();
    await watching;
  });
});
