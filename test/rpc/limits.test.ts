import assert from "node:assert/strict";
import { type ClientHttp2Stream, connect } from "node:http2";
import { describe, it } from "node:test";
import { Code, type ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.ts";
import { Health } from "../../gen/health/v1/health_pb.ts";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { externalNetworkOf, unmapped } from "../../server/http/client-network.ts";
import { RateLimiter } from "../../server/rpc/rate-limiter.ts";
import { AUTH_TOKENS, bearer, errorOf, PROTOCOLS, sending, TOKENS } from "../access/callers.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { until } from "../support/until.ts";

const SHOPPER = "203.0.113.7";
const OTHER_SHOPPER = "203.0.113.8";

/** A transport with the headers of a proxy that forwards calls of the client at `address`. */
function transportOf(app: TestApp, protocol: string, address: string, token?: string): Transport {
  const create = PROTOCOLS[protocol];
  assert.ok(create);
  const interceptors = [sending({ "x-forwarded-for": address }), ...(token ? [bearer(token)] : [])];
  return create({ baseUrl: app.url, interceptors });
}

function read(transport: Transport): Promise<ConnectError | undefined> {
  return errorOf(createClient(StockService, transport).batchGetStock({ productIds: ["p1"] }));
}

function order(transport: Transport): Promise<ConnectError | undefined> {
  return errorOf(createClient(ReservationService, transport).getReservation({ reservationId: "r1" }));
}

/** Calls until one ends with RESOURCE_EXHAUSTED. Returns that error and the number of calls before it. */
async function callUntilRefused(
  call: () => Promise<ConnectError | undefined>,
  callsMax: number,
): Promise<{ readonly error: ConnectError; readonly before: number }> {
  for (let before = 0; before < callsMax; before += 1) {
    const error = await call();
    if (error?.code === Code.ResourceExhausted) {
      return { error, before };
    }
  }
  return assert.fail(`none of ${callsMax} calls was refused`);
}

/**
 * Keeps calls of an address in flight, by streams that send no request. A stream that is refused, because another call is
 * in flight at that moment, is opened again.
 */
function holdReads(
  app: TestApp,
  count: number,
  address: string,
): Disposable & { readonly release: () => void } {
  const session = connect(app.url);
  const streams = new Set<ClientHttp2Stream>();
  let isReleased = false;
  const open = (): void => {
    const stream = session.request({
      ":method": "POST",
      ":path": "/inventory.v1.StockService/GetStock",
      "content-type": "application/grpc",
      "x-forwarded-for": address,
      te: "trailers",
    });
    streams.add(stream);
    stream.on("error", () => {
      // The test destroys the session.
    });
    stream.on("response", () => {
      streams.delete(stream);
      if (!isReleased) open();
    });
  };
  for (let each = 0; each < count; each += 1) open();
  return {
    release: () => {
      isReleased = true;
      for (const stream of streams) stream.close();
    },
    [Symbol.dispose]: () => {
      isReleased = true;
      session.destroy();
    },
  };
}

/** More than ten times the limit of calls in flight. */
const UNAUTHENTICATED = 20;

/** Above the delay of an event loop on a busy machine. JAM_MS is above it, and far below the tenfold limit of Orders. */
const SHED_DELAY_MS = 50;
const JAM_MS = 120;
/** Shorter than the sampling interval of the loop delay, so that each sample is delayed. */
const BETWEEN_JAMS_MS = 5;
const SHED_MS_MAX = 30_000;

/** Calls without a token, on a connection whose flow-control window lets no error body through. */
function unauthenticatedCalls(app: TestApp): Disposable & { readonly refused: () => number } {
  const session = connect(app.url, { settings: { initialWindowSize: 0 } });
  let refused = 0;
  for (let each = 0; each < UNAUTHENTICATED; each += 1) {
    const stream = session.request({
      ":method": "POST",
      ":path": "/inventory.v1.ReservationService/GetReservation",
      "content-type": "application/json",
    });
    stream.on("response", ({ ":status": status }) => {
      refused += status === 401 ? 1 : 0;
    });
    stream.on("error", () => {
      // The test destroys the session.
    });
    stream.end("{}");
  }
  return { refused: () => refused, [Symbol.dispose]: () => session.destroy() };
}

for (const LANE of ["on", "off"]) {
  for (const protocol of Object.keys(PROTOCOLS)) {
    describe(`limits of ${protocol}, with LANE=${LANE}`, () => {
      const start = (environment: NodeJS.ProcessEnv): Promise<TestApp> =>
        startTestApp({ LANE, AUTH_TOKENS, TRUSTED_PROXIES: "127.0.0.1", ...environment });

      it("limits the rate of one address independently of others", async () => {
        await using app = await start({ READS_PER_ADDRESS: "1" });
        const shopper = transportOf(app, protocol, SHOPPER);
        const { error } = await callUntilRefused(() => read(shopper), 1_000);
        assert.match(error.rawMessage, /More than 1 calls a second came from 203\.0\.113\.7/);
        const [retry] = error.findDetails(RetryInfoSchema);
        assert.equal(retry?.retryDelay?.seconds, 1n);
        assert.equal(await read(transportOf(app, protocol, OTHER_SHOPPER)), undefined);
        const inside = transportOf(app, protocol, "10.1.2.3");
        for (let calls = 0; calls < 20; calls += 1) {
          assert.equal(await read(inside), undefined, "private addresses are not limited");
        }
        const orders = transportOf(app, protocol, SHOPPER, TOKENS.orders);
        assert.equal((await order(orders))?.code, Code.NotFound, "authenticated calls are not limited");
      });

      it("treats a /64 of IPv6 as one client", async () => {
        await using app = await start({ READS_PER_ADDRESS: "1" });
        let host = 0;
        const fromNextHost = (): Promise<ConnectError | undefined> => {
          host += 1;
          return read(transportOf(app, protocol, `2001:db8:7:7::${host.toString(16)}`));
        };
        await callUntilRefused(fromNextHost, 1_000);
        assert.equal(await read(transportOf(app, protocol, "2001:db8:7:8::1")), undefined);
      });

      it("limits one address to a tenth of the calls in flight", async () => {
        await using app = await start({ CALLS_IN_FLIGHT_MAX: "20" });
        using held = holdReads(app, 2, SHOPPER);
        const shopper = transportOf(app, protocol, SHOPPER);
        await until(
          async () => (await read(shopper))?.code === Code.ResourceExhausted,
          "the address has two calls in flight",
        );
        assert.equal(await read(transportOf(app, protocol, OTHER_SHOPPER)), undefined);
        held.release();
        await until(async () => (await read(shopper)) === undefined, "its calls have ended");
      });

      it("stops verifying tokens of an address after many refused ones", async () => {
        await using app = await start({});
        const guesser = transportOf(app, protocol, SHOPPER, "a guess");
        const { before } = await callUntilRefused(() => order(guesser), 10_000);
        assert.ok(
          before >= 20,
          "a burst gets UNAUTHENTICATED, so that a misconfiguration is reported as one",
        );
        const right = transportOf(app, protocol, OTHER_SHOPPER, TOKENS.orders);
        assert.equal((await order(right))?.code, Code.NotFound);
      });

      it("refuses public reads while the event loop is delayed, but not Orders or health checks", async () => {
        await using app = await start({ SHED_DELAY_MS: String(SHED_DELAY_MS) });
        const shopper = transportOf(app, protocol, SHOPPER);
        const orders = transportOf(app, protocol, SHOPPER, TOKENS.orders);
        const probe = createClient(Health, shopper);
        let isJammed = true;
        const jam = (): void => {
          const until = performance.now() + JAM_MS;
          while (performance.now() < until) {
            // Blocks the event loop, which the server shares.
          }
          if (isJammed) {
            setTimeout(jam, BETWEEN_JAMS_MS);
          }
        };
        jam();
        try {
          await until(
            async () => {
              const [shed, kept, probed] = await Promise.all([
                read(shopper),
                order(orders),
                errorOf(probe.check({})),
              ]);
              return (
                shed?.code === Code.ResourceExhausted && kept?.code === Code.NotFound && probed === undefined
              );
            },
            "only public reads are refused",
            SHED_MS_MAX,
          );
        } finally {
          isJammed = false;
        }
        await until(
          async () => (await read(shopper)) === undefined,
          "public reads are served again",
          SHED_MS_MAX,
        );
      });
    });
  }

  describe(`calls in flight, with LANE=${LANE}`, () => {
    it("are limited for public reads before they are for Orders", async () => {
      await using app = await startTestApp({ LANE, AUTH_TOKENS, CALLS_IN_FLIGHT_MAX: "2" });
      const transport = (token?: string): Transport => transportOf(app, "gRPC", SHOPPER, token);
      using held = holdReads(app, 2, SHOPPER);
      const shopper = transport();
      const refused = async (): Promise<boolean> => (await read(shopper))?.code === Code.ResourceExhausted;
      await until(refused, "the two calls are in flight");
      assert.equal((await order(transport(TOKENS.orders)))?.code, Code.NotFound);
      const supply = createClient(SupplyService, transport(TOKENS.supply));
      assert.equal(await errorOf(supply.putProduct({ productId: "p1", declared: 1 })), undefined);
      held.release();
      await until(async () => (await read(shopper)) === undefined, "both calls have ended");
    });

    it("do not include calls that authentication refused, even if the error is not read", async () => {
      await using app = await startTestApp({ LANE, AUTH_TOKENS, CALLS_IN_FLIGHT_MAX: "1" });
      using session = unauthenticatedCalls(app);
      await until(() => session.refused() === UNAUTHENTICATED, "all are refused, and their streams are open");
      assert.equal((await order(transportOf(app, "gRPC", SHOPPER, TOKENS.orders)))?.code, Code.NotFound);
    });

    it("are a 429 that must not be cached in the Connect protocol", async () => {
      await using app = await startTestApp({ LANE, TRUSTED_PROXIES: "127.0.0.1", READS_PER_ADDRESS: "1" });
      const query = "connect=v1&encoding=json&message=%7B%22productIds%22%3A%5B%22p1%22%5D%7D";
      const url = `${app.url}/inventory.v1.StockService/BatchGetStock?${query}`;
      const call = (): Promise<Response> => fetch(url, { headers: { "x-forwarded-for": SHOPPER } });
      const response = await until(async () => {
        const each = await call();
        await each.arrayBuffer();
        return each.status === 200 ? undefined : each;
      }, "a call is refused");
      assert.deepEqual([response.status, response.headers.get("cache-control")], [429, "no-store"]);
    });
  });
}

describe("the rate limiter", () => {
  it("drops the least recently used addresses, and keeps a bounded number", () => {
    const limiter = new RateLimiter(1);
    const spend = (address: string): boolean =>
      limiter.take(address) && limiter.take(address) && limiter.take(address);
    assert.equal(spend("198.51.100.1"), false);
    assert.equal(spend("198.51.100.2"), false);
    let most = 0;
    for (let each = 0; each < 120_000; each += 1) {
      limiter.take(`203.${each >> 16}.${(each >> 8) & 255}.${each & 255}`);
      limiter.take("198.51.100.2");
      most = Math.max(most, limiter.size);
    }
    assert.ok(limiter.take("198.51.100.1"), "dropped");
    assert.equal(limiter.has("198.51.100.2"), false, "kept");
    assert.ok(most <= 100_000, `${most} are kept`);
  });

  it("recognizes one client in every spelling of its address", () => {
    for (const inside of ["127.0.0.1", "10.1.2.3", "::1", "fd00::7", "fe80::1%eth0", "::ffff:10.1.2.3"]) {
      assert.equal(externalNetworkOf(inside), undefined, inside);
    }
    assert.equal(externalNetworkOf("2001:db8::7:1:2:3:4"), externalNetworkOf("2001:db8:0:7:ffff::"));
    assert.notEqual(externalNetworkOf("2001:db8:0:7::1"), externalNetworkOf("2001:db8:0:8::1"));
    // The form that a dual-stack socket reports.
    const socket = { remoteAddress: "::ffff:203.0.113.7" };
    assert.equal(unmapped(socket.remoteAddress), "203.0.113.7");
  });
});
