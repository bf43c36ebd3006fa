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
  type WireAnswer,
  WireClient,
  type WireRequest,
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

/** A watch of it ends soon, by a goodbye, so that each of its answers is whole. */
const SHORT_LIFE: Partial<WatchLimits> = { lifeMs: 20, reconnectMs: 2_000 };

/** Two servers that know the same products: one with the lane, one where Connect answers everything. */
class Pair implements AsyncDisposable {
  /** Answers that have begun. */
  begun = 0;
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

  async answers(dialect: Dialect, request: WireRequest): Promise<readonly [WireAnswer, WireAnswer]> {
    const [short, long] = await Promise.all(
      this.#servers.map(({ client }) =>
        client.call(dialect.isHttp2, request, () => {
          this.begun += 1;
        }),
      ),
    );
    assert.ok(short && long);
    return [short, long];
  }

  /** Both answers, which are alike. */
  async answerAlike(dialect: Dialect, request: WireRequest, what: string): Promise<unknown> {
    const [short, long] = await this.answers(dialect, request);
    const told = comparable(dialect, watchStock, short);
    assert.deepEqual(told, comparable(dialect, watchStock, long), `${dialect.name}: ${what}`);
    return told;
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
    const answer = await fetch(new URL("/inventory.v1.StockService/ListStock", app.url), {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{}",
    });
    return ((await answer.json()) as { totalSize?: number }).totalSize === PRODUCTS;
  }, "the server knows all products");
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

/** The names in which the protocols let a client ask for compressed messages. */
const ACCEPT = { "grpc-accept-encoding": "gzip", "connect-accept-encoding": "gzip" };

describe("the lane of watches and the long way", { timeout: 60_000 }, () => {
  let pair: Pair;
  before(async () => {
    pair = await Pair.start(SHORT_LIFE);
  });
  after(() => pair[Symbol.asyncDispose]());

  for (const dialect of STREAM_DIALECTS) {
    it(`answer alike in ${dialect.name} over ${versionOf(dialect)}`, async () => {
      for (const [what, json, sign] of CASES) {
        const told = await pair.answerAlike(dialect, request(dialect, json), what);
        assert.match(JSON.stringify(told), sign, what);
      }
      for (const origin of [ORIGIN, "https://other.example"]) {
        const told = await pair.answerAlike(dialect, request(dialect, {}, { origin }), origin);
        assert.equal(JSON.stringify(told).includes("access-control-allow-origin"), origin === ORIGIN);
        await pair.answerAlike(
          dialect,
          request(dialect, { productIds: [""] }, { origin }),
          `refused, ${origin}`,
        );
      }
    });
  }

  it("answer alike where the request is not one whole plain message", async () => {
    for (const dialect of STREAM_DIALECTS) {
      const whole = request(dialect, { productIds: ["p1"] });
      const flagged = (flags: number): Buffer => envelope(whole.body.subarray(5), flags);
      const bodies = {
        empty: Buffer.alloc(0),
        "half an envelope": whole.body.subarray(0, 7),
        "two messages": Buffer.concat([whole.body, whole.body]),
        "said to be compressed": flagged(1),
        "said to be the end": flagged(2),
        "said to be trailers": flagged(128),
        "no message": envelope(Buffer.from([0xff])),
        "over the limit": envelope(Buffer.alloc(1_048_577)),
      };
      for (const [what, body] of Object.entries(bodies)) {
        await pair.answerAlike(dialect, { ...whole, body }, what);
      }
    }
  });

  it("are two: Connect compresses where it is asked to, and the lane does not", async () => {
    for (const dialect of STREAM_DIALECTS) {
      const wish = request(dialect, {}, ACCEPT);
      const told = await pair.answers(dialect, wish);
      const [isShort, isLong] = told.map(({ body }) => body.includes(LONG_TEXT));
      assert.deepEqual([isShort, isLong], [true, false], `${dialect.name} over ${versionOf(dialect)}`);
    }
  });

  it(`answer alike what is odd: ${MUTATIONS} mutated requests`, async (t) => {
    t.diagnostic(`PARITY_SEED=${SEED}`);
    const random = mulberry32(SEED);
    const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)] as T;
    const odd = Array.from({ length: MUTATIONS }, () => {
      const dialect = pick(STREAM_DIALECTS);
      const [what, json] = pick(CASES);
      return { dialect, what, request: mutate(request(dialect, json), random) };
    });
    for (let n = 0; n < MUTATIONS; n += AT_ONCE) {
      await Promise.all(
        odd.slice(n, n + AT_ONCE).map(({ dialect, what, request }, index) => {
          const bytes = request.body.toString("hex").slice(0, 200);
          const mutation = `PARITY_SEED=${SEED} mutation ${n + index}: ${what}`;
          return pair.answerAlike(
            dialect,
            request,
            `${mutation} ${JSON.stringify(request.headers)} ${bytes}`,
          );
        }),
      );
    }
  });
});

describe("the lane of watches and the long way, at their ends", { timeout: 60_000 }, () => {
  const everyDialect = (run: (dialect: Dialect) => Promise<void>): Promise<unknown> =>
    Promise.all(STREAM_DIALECTS.map(run));

  it("refuse beyond the limit alike, with the delay", async () => {
    await using pair = await Pair.start({ watchesMax: 0 });
    await everyDialect(async (dialect) => {
      const told = JSON.stringify(await pair.answerAlike(dialect, request(dialect, {}), "limit"));
      assert.match(told, /0 watches are open on this server/);
      assert.match(told, /RetryInfo/);
    });
  });

  it("end at the deadline alike, after the snapshot", async () => {
    await using pair = await Pair.start({});
    await everyDialect(async (dialect) => {
      const wish = request(
        dialect,
        { productIds: ["p1"] },
        { "grpc-timeout": "3S", "connect-timeout-ms": "3000" },
      );
      const told = JSON.stringify(await pair.answerAlike(dialect, wish, "deadline"));
      assert.match(
        told,
        /"lastOfSnapshot":true.*(grpc-status: 4|deadline_exceeded)|grpc-status: 4.*"lastOfSnapshot":true/,
      );
    });
  });

  it("say goodbye alike when the server stops, and end with OK", async () => {
    await using pair = await Pair.start({});
    const watching = everyDialect(async (dialect) => {
      const told = JSON.stringify(await pair.answerAlike(dialect, request(dialect, {}), "drain"));
      assert.match(told, /"reconnectAfter":"SOON"/);
      assert.match(told, /grpc-status: 0|"end":"\{\}"/);
    });
    await until(() => pair.begun === 2 * STREAM_DIALECTS.length, "all watch");
    await pair.stop();
    await watching;
  });
});
