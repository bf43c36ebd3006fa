import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { clientBehind } from "../../server/http/caller.ts";
import { isNetwork, TrustedProxies } from "../../server/http/trusted-proxies.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { until } from "../support/until.ts";

const PROXIES = ["10.0.0.0/8", "192.0.2.7", "fd00::/8", "2001:db8::1"];

describe("the client's address", () => {
  const CASES: readonly [what: string, peer: string, forwarded: string | undefined, is: string][] = [
    ["no proxy", "198.51.100.1", undefined, "198.51.100.1"],
    ["an untrusted peer that sends the header", "198.51.100.1", "203.0.113.9", "198.51.100.1"],
    ["a proxy without the header", "10.1.2.3", undefined, "10.1.2.3"],
    ["a proxy with an empty header", "10.1.2.3", "", "10.1.2.3"],
    ["one proxy", "10.1.2.3", "203.0.113.9", "203.0.113.9"],
    ["a single address as proxy", "192.0.2.7", "203.0.113.9", "203.0.113.9"],
    ["the address next to it", "192.0.2.8", "203.0.113.9", "192.0.2.8"],
    ["a header that the client forged", "10.1.2.3", "1.1.1.1, 2.2.2.2, 203.0.113.9", "203.0.113.9"],
    ["two proxies", "10.1.2.3", "1.1.1.1, 203.0.113.9, 10.9.9.9", "203.0.113.9"],
    ["a client in a trusted network", "10.1.2.3", "10.7.7.7, 10.9.9.9", "10.7.7.7"],
    ["a client that pretends to be a proxy", "10.1.2.3", "10.5.5.5, 203.0.113.9", "203.0.113.9"],
    ["an entry of the client that is not an address", "10.1.2.3", "unknown", "10.1.2.3"],
    [
      "an entry behind a proxy that is not an address",
      "10.1.2.3",
      "203.0.113.9, _hidden, 10.9.9.9",
      "10.9.9.9",
    ],
    ["an address with a port", "10.1.2.3", "203.0.113.9:4711", "203.0.113.9"],
    ["IPv6", "fd00::5", "2001:DB8:0:0::9", "2001:db8::9"],
    ["IPv6 with a port", "fd00::5", "[2001:db8::9]:4711", "2001:db8::9"],
    ["a single IPv6 proxy in another spelling", "2001:db8:0:0::1", "203.0.113.9", "203.0.113.9"],
    ["IPv4 at a dual-stack socket", "::ffff:10.1.2.3", "203.0.113.9", "203.0.113.9"],
    ["IPv4 written as IPv6", "10.1.2.3", "::ffff:203.0.113.9", "203.0.113.9"],
    ["a closed socket", "unknown", "203.0.113.9", "unknown"],
  ];
  const addressOf = (trusted: readonly string[], peer: string, forwarded: string | undefined): string => {
    const headers = forwarded === undefined ? {} : { "x-forwarded-for": forwarded };
    return clientBehind({ address: peer, connection: {} }, headers, new TrustedProxies(trusted)).address;
  };
  for (const [what, peer, forwarded, is] of CASES) {
    it(`${what}: ${peer}, X-Forwarded-For ${forwarded ?? "missing"}`, () => {
      assert.equal(addressOf(PROXIES, peer, forwarded), is);
    });
  }

  it("is the peer's without trusted proxies", () => {
    assert.equal(addressOf([], "10.1.2.3", "203.0.113.9"), "10.1.2.3");
    assert.equal(addressOf([], "127.0.0.1", "203.0.113.9"), "127.0.0.1");
  });

  it("accepts addresses and networks only", () => {
    for (const network of [...PROXIES, "0.0.0.0/0", "::/0", "10.0.0.1/32", "fd00::1/128"]) {
      assert.ok(isNetwork(network), network);
    }
    for (const other of ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "fd00::/129", "edge", "10.0.0.0/-1"]) {
      assert.ok(!isNetwork(other), other);
    }
  });
});

const WATCH_LIMITS = { watchesPerAddressMax: 2, watchesPerConnectionMax: 1 };

/** Opens watches, each on a connection of its own unless one is given, and keeps those that were admitted. */
class Watchers implements AsyncDisposable {
  readonly #app: TestApp;
  readonly #stop = new AbortController();
  readonly #sessions: Http2SessionManager[] = [];

  constructor(app: TestApp) {
    this.#app = app;
  }

  session(): Http2SessionManager {
    const session = new Http2SessionManager(this.#app.url);
    this.#sessions.push(session);
    return session;
  }

  async tryOpen(forwardedFor: string, transport = this.overHttp2(this.session())): Promise<boolean> {
    const options = { signal: this.#stop.signal, headers: { "x-forwarded-for": forwardedFor } };
    const watch = createClient(StockService, transport).watchStock({ productIds: ["mug"] }, options);
    try {
      await watch[Symbol.asyncIterator]().next();
      return true;
    } catch (error) {
      assert.equal(ConnectError.from(error).code, Code.ResourceExhausted, String(error));
      return false;
    }
  }

  overHttp2(sessionManager: Http2SessionManager): Transport {
    return createGrpcTransport({ baseUrl: this.#app.url, sessionManager });
  }

  overHttp1(): Transport {
    return createConnectTransport({ baseUrl: this.#app.url, httpVersion: "1.1" });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    for (const session of this.#sessions) {
      session.abort();
    }
    await this.#app.stop();
  }
}

describe("limits per client", () => {
  it("apply to each client that a trusted proxy names, not to its connection", async () => {
    const app = await startTestApp({ TRUSTED_PROXIES: "127.0.0.1" }, { watchLimits: WATCH_LIMITS });
    await until(async () => (await fetch(`${app.url}/readyz`)).ok, "the server is ready");
    await using watchers = new Watchers(app);
    const shared = watchers.overHttp2(watchers.session());
    const tried: Record<string, boolean[]> = {};
    for (const client of ["203.0.113.1", "203.0.113.2", "9.9.9.9, 203.0.113.1"]) {
      tried[client] = [];
      for (const transport of [shared, watchers.overHttp1(), shared]) {
        tried[client].push(await watchers.tryOpen(client, transport));
      }
    }
    assert.deepEqual(tried, {
      "203.0.113.1": [true, true, false],
      "203.0.113.2": [true, true, false],
      "9.9.9.9, 203.0.113.1": [false, false, false],
    });
  });

  it("apply to the peer and its connection without trusted proxies, whatever header it sends", async () => {
    const app = await startTestApp({}, { watchLimits: WATCH_LIMITS });
    await until(async () => (await fetch(`${app.url}/readyz`)).ok, "the server is ready");
    await using watchers = new Watchers(app);
    const shared = watchers.overHttp2(watchers.session());
    const tried = [
      await watchers.tryOpen("203.0.113.1", shared),
      await watchers.tryOpen("203.0.113.2", shared),
      await watchers.tryOpen("203.0.113.3"),
      await watchers.tryOpen("203.0.113.4"),
      await watchers.tryOpen("203.0.113.5", watchers.overHttp1()),
    ];
    assert.deepEqual(tried, [true, false, true, false, false]);
  });
});
