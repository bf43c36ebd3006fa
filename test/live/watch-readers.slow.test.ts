import assert from "node:assert/strict";
import { type ChannelListener, subscribe, unsubscribe } from "node:diagnostics_channel";
import { type ClientRequest, type IncomingMessage, request, type ServerResponse } from "node:http";
import { type ClientHttp2Session, type ClientHttp2Stream, connect, type ServerHttp2Stream } from "node:http2";
import { describe, it } from "node:test";
import { startTestApp, type TestApp } from "../support/app.ts";
import { until } from "../support/until.ts";
import { type Clients, clientsOf, Envelopes, each, envelopedRequest, type WatchWish } from "./wire.ts";

const PATH = "/inventory.v1.StockService/WatchStock";
/** Memory that a reader that stops reading may hold in the server. */
const HELD_BYTES_MAX = 32 * 1024;
const CHANGES = 5_000;
const PRODUCTS = 50;
const LONG_TEXT = "x".repeat(4_000);
const UNKNOWN_IDS = Array.from({ length: 1_000 }, (_, n) => String(n).padEnd(128, "-"));
/** Longer than any wait of these tests, so that a watch that outlives its reader is seen, and short enough to end with the file. */
const LIFE_MS = 60_000;
/** Time for fifty watches to receive their first message on a busy machine. */
const OPENED_MS_MAX = 30_000;

/** A client that decides when to read. */
interface Reader {
  readonly received: Envelopes;
  /** Whether the response headers have arrived. */
  readonly hasStarted: () => boolean;
  /** Starts reading. */
  readonly resume: () => void;
  /** Disconnects at the level of TCP or HTTP/2. */
  readonly vanish: () => void;
}

/** Its flow-control window stays closed, so that no byte of a response may be sent. */
function stoppedHttp2Reader(app: TestApp, wish: WatchWish): Reader {
  const received = new Envelopes();
  const session: ClientHttp2Session = connect(app.url, { settings: { initialWindowSize: 0 } });
  session.on("error", () => undefined);
  const stream: ClientHttp2Stream = session.request({
    ":method": "POST",
    ":path": PATH,
    "content-type": "application/grpc+proto",
    te: "trailers",
  });
  let answered = false;
  stream.on("error", () => undefined);
  stream.on("response", () => {
    answered = true;
  });
  stream.end(envelopedRequest(wish));
  return {
    received,
    hasStarted: () => answered,
    resume: () => {
      session.settings({ initialWindowSize: 65_535 });
      stream.on("data", (chunk: Buffer) => received.push(chunk));
    },
    vanish: () => session.destroy(),
  };
}

/** It reads the response headers, and leaves the rest in the buffers of the system until they are full. */
function stoppedHttp1Reader(app: TestApp, wish: WatchWish): Reader {
  const received = new Envelopes();
  const call: ClientRequest = request(new URL(PATH, app.url), {
    method: "POST",
    agent: false,
    headers: { "content-type": "application/connect+proto" },
  });
  let started: IncomingMessage | undefined;
  call.on("error", () => undefined);
  call.on("response", (response) => {
    started = response;
    response.on("error", () => undefined);
    response.pause();
  });
  call.end(envelopedRequest(wish));
  return {
    received,
    hasStarted: () => started !== undefined,
    resume: () => started?.on("data", (chunk: Buffer) => received.push(chunk)).resume(),
    vanish: () => call.destroy(),
  };
}

/** The server's side of every watch, observed through Node's diagnostics. */
class ServerSide implements Disposable {
  readonly #held: { readonly protocol: string; readonly bytes: () => number }[] = [];
  readonly #onStream: ChannelListener = (message) => {
    const { stream, headers } = message as { stream: ServerHttp2Stream; headers: Record<string, string> };
    if (headers[":path"] === PATH) {
      const bytes = (): number => (stream.destroyed ? 0 : stream.writableLength);
      this.#held.push({ protocol: "HTTP/2", bytes });
    }
  };
  readonly #onRequest: ChannelListener = (message) => {
    const { request, response } = message as { request: IncomingMessage; response: ServerResponse };
    if (request.url === PATH) {
      const bytes = (): number => (response.destroyed ? 0 : response.writableLength);
      this.#held.push({ protocol: "HTTP/1.1", bytes });
    }
  };

  constructor() {
    subscribe("http2.server.stream.created", this.#onStream);
    subscribe("http.server.request.start", this.#onRequest);
  }

  get watches(): number {
    return this.#held.length;
  }

  /** Bytes buffered for each reader. */
  held(): number[] {
    return this.#held.map(({ bytes }) => bytes());
  }

  heldBy(): { readonly protocol: string; readonly bytes: number }[] {
    return this.#held.map(({ protocol, bytes }) => ({ protocol, bytes: bytes() }));
  }

  [Symbol.dispose](): void {
    unsubscribe("http2.server.stream.created", this.#onStream);
    unsubscribe("http.server.request.start", this.#onRequest);
  }
}

const put = ({ supply }: Clients, productId: string, declared: number, description = "", collectionId = "") =>
  supply.putProduct({ productId, declared, product: { name: "n", description, price: 1, collectionId } });

const READERS = [
  { name: "HTTP/2 with a closed window", open: stoppedHttp2Reader },
  { name: "HTTP/1.1 with a paused socket", open: stoppedHttp1Reader },
];

describe("a reader that stops reading", () => {
  it(`holds at most 32 KB over ${CHANGES} changes, and receives the newest value`, async (t) => {
    await using app = await startTestApp();
    await using clients = clientsOf(app);
    using server = new ServerSide();
    using ends = new DisposableStack();
    for (let n = 0; n < PRODUCTS; n++) {
      await put(clients, `p${n}`, 1, LONG_TEXT);
    }
    const wishes: WatchWish[] = [{}, { productIds: ["p0"] }, { productIds: ["p1", "p2", "p3"] }];
    const readers = READERS.flatMap(({ name, open }) =>
      wishes.map((wish) => {
        const reader = open(app, wish);
        ends.defer(reader.vanish);
        return { name, reader, ids: wish.productIds };
      }),
    );
    await until(() => server.watches === readers.length, "the watches are open");
    await until(() => readers.every(({ reader }) => reader.hasStarted()), "the responses have started");
    const most = new Map<string, number>();
    await each(CHANGES, 32, async (n) => {
      await put(clients, `p${n % PRODUCTS}`, n, `${n} ${LONG_TEXT}`);
      for (const { protocol, bytes } of server.heldBy()) {
        most.set(protocol, Math.max(most.get(protocol) ?? 0, bytes));
      }
    });
    for (const [protocol, bytes] of most) {
      t.diagnostic(`${protocol}: at most ${bytes} bytes of responses were buffered for a reader`);
    }
    const versions = new Map<string, number>();
    for (let n = 0; n < PRODUCTS; n++) {
      const { ledger } = await clients.supply.getLedger({ productId: `p${n}` });
      versions.set(`p${n}`, Number(ledger?.version));
    }
    for (const { name, reader, ids = [...versions.keys()] } of readers) {
      const { received, resume } = reader;
      resume();
      await until(
        () => ids.every((id) => received.version(id) === versions.get(id)),
        "it has the newest values",
      );
      const size = `${received.bytes} bytes in ${received.messages.length} messages`;
      t.diagnostic(`${name}, ${ids.length} products: ${size} came in the end`);
    }
    for (const [protocol, bytes] of most) {
      assert.ok(bytes > 0, `${protocol}: a reader has read`);
      assert.ok(bytes <= HELD_BYTES_MAX, `${protocol}: ${bytes} bytes`);
    }
  });

  for (const { name, open } of READERS) {
    it(`${name}: is released when it disconnects: its slot is free, its timers are cleared`, async () => {
      const watchers = 50;
      await using app = await startTestApp(
        {},
        { watchLimits: { watchesMax: watchers, lifetimeMs: LIFE_MS } },
      );
      await using clients = clientsOf(app);
      // More than one reader's buffer: the client disconnects in the middle of the snapshot.
      await each(40, 8, (n) => put(clients, `p${n}`, 1, LONG_TEXT));
      using server = new ServerSide();
      const timers = (): number =>
        process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
      const before = timers();
      const rounds: WatchWish[] = [{}, { productIds: ["p0", "p1"] }, { productIds: UNKNOWN_IDS }];
      let opened = 0;
      for (const wish of rounds) {
        using ends = new DisposableStack();
        const readers = Array.from({ length: watchers }, () => open(app, wish));
        for (const { vanish } of readers) {
          ends.defer(vanish);
        }
        await until(
          () => readers.every(({ hasStarted }) => hasStarted()),
          "all watches are open",
          OPENED_MS_MAX,
        );
        opened += watchers;
        await put(clients, "p0", opened, `${opened} ${LONG_TEXT}`);
        await assert.rejects(
          clients.stock.watchStock({})[Symbol.asyncIterator]().next(),
          /watches are open/,
          "the server is full",
        );
        ends.dispose();
        await until(async () => {
          const end = new AbortController();
          await clients.stock.watchStock({}, { signal: end.signal })[Symbol.asyncIterator]().next();
          end.abort();
          return true;
        }, "a slot is free");
        await until(
          () => server.held().every((bytes) => bytes === 0),
          "nothing is buffered for disconnected clients",
        );
      }
      await until(() => timers() <= before + 10, `the timers of ${opened} watches are cleared`).catch(
        (error: Error) => {
          throw new Error(`${error.message}: there were ${before}, and there are ${timers()}`);
        },
      );
    });
  }

  it("stays within the bound for long responses: unknown IDs, and long collection IDs", async (t) => {
    await using app = await startTestApp({}, { watchLimits: { lifetimeMs: LIFE_MS } });
    await using clients = clientsOf(app);
    using server = new ServerSide();
    using ends = new DisposableStack();
    ends.defer(stoppedHttp2Reader(app, { productIds: UNKNOWN_IDS }).vanish);
    await until(() => (server.held()[0] ?? 0) > 0, "the watch is open");
    const ofUnknown = server.held()[0] ?? 0;
    await each(400, 32, (n) => put(clients, `${n}`, 2_147_483_647, "", "c".repeat(128)));
    ends.defer(stoppedHttp2Reader(app, {}).vanish);
    await until(() => (server.held()[1] ?? 0) > 0, "the watch is open");
    const ofAll = server.held()[1] ?? 0;
    t.diagnostic(`${ofUnknown} bytes of 1,000 unknown IDs, ${ofAll} of 400 products in long collections`);
    assert.ok(ofAll <= HELD_BYTES_MAX, `${ofAll} bytes`);
    assert.ok(ofUnknown <= HELD_BYTES_MAX, `${ofUnknown} bytes`);
  });
});
