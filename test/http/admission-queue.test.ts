import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import { pino } from "pino";
import { type Listener, startListener } from "../../server/http/listener/listener.ts";
import {
  END_HEADERS,
  END_STREAM,
  FRAME,
  field,
  frame,
  PREFACE,
  postBlock,
  RawClient,
  SETTINGS,
} from "../attack/raw-client.ts";
import { until } from "../support/until.ts";

const HELLO = Buffer.concat([PREFACE, SETTINGS]);
const CONNECTIONS = 20;
const STREAMS = 100;
const BURST = CONNECTIONS * STREAMS;
/** CPU time of each request of the burst: together they take a fifth of a second. */
const COST_MS = 0.1;

interface Served extends Listener {
  /** Requests of the burst that have started. */
  started(): number;
  /** Requests of the burst that had started before the first request to a `/probe` path. */
  startedBeforeProbe(): number | undefined;
}

/** A listener that handles streams below `/fast` as a fast path does. Other requests go to the handler. */
async function open(t: TestContext, onStarted: (count: number) => void): Promise<Served> {
  let started = 0;
  let before: number | undefined;
  const serve = (path: string | undefined): void => {
    if (path?.endsWith("/probe")) {
      before ??= started;
      return;
    }
    started += 1;
    onStarted(started);
    for (const end = performance.now() + COST_MS; performance.now() < end; );
  };
  const listener = await startListener({
    host: "127.0.0.1",
    port: 0,
    handler: (req, res) => {
      serve(req.url);
      res.end();
    },
    tryHandleStream: (stream, headers) => {
      const path = headers[":path"];
      const isFast = path?.startsWith("/fast") === true;
      if (isFast) {
        serve(path);
        stream.respond({ ":status": 200 }, { endStream: true });
      }
      return isFast;
    },
    log: pino({ level: "silent" }),
  });
  t.after(() => listener.drain(0));
  return Object.assign(listener, { started: () => started, startedBeforeProbe: () => before });
}

function ask(stream: number, path: string, fields: Buffer = Buffer.alloc(0)): Buffer {
  const block = Buffer.concat([postBlock(path, "text/plain"), fields]);
  return frame(FRAME.headers, END_HEADERS | END_STREAM, stream, block);
}

/** Opens connections and waits until the listener has accepted them: libuv accepts one per turn. */
async function openMany(t: TestContext, listener: Listener, count: number): Promise<RawClient[]> {
  const all = listener.connections() + count;
  const clients = await RawClient.openMany(listener.port, count);
  t.after(() => {
    for (const client of clients) client[Symbol.dispose]();
  });
  await until(() => listener.connections() === all, "all are accepted");
  return clients.map((client) => client.read());
}

/** Starts an HTTP/2 session on each and waits for the server's SETTINGS. */
async function startSessions(clients: readonly RawClient[]): Promise<void> {
  for (const client of clients) client.socket.write(HELLO);
  await until(
    () => clients.every((client) => client.received.length > 0),
    "the server has sent SETTINGS to each",
  );
}

describe("a burst of requests", () => {
  const burst = (path: string): Buffer =>
    Buffer.concat(Array.from({ length: STREAMS }, (_, each) => ask(2 * each + 1, path)));

  for (const [path, probe, fields] of [
    ["/fast", "/fast/probe"],
    ["/", "/fast/probe"],
    ["/", "/probe"],
    ["/", "/probe", field("authorization", "Bearer a")],
  ] as const) {
    const what = `${probe}${fields === undefined ? "" : " with credentials"}`;
    it(`for ${path} on new connections does not delay ${what}`, async (t) => {
      let probeClient: RawClient | undefined;
      const listener = await open(t, (count) => {
        if (count === 1) probeClient?.socket.write(ask(1, probe, fields));
      });
      [probeClient] = await openMany(t, listener, 1);
      assert.ok(probeClient);
      await startSessions([probeClient]);
      const clients = await openMany(t, listener, CONNECTIONS);
      for (const client of clients) client.socket.write(Buffer.concat([HELLO, burst(path)]));
      await until(() => listener.started() === BURST, "the whole burst has started");
      const before = listener.startedBeforeProbe();
      assert.ok(before !== undefined && before < BURST / 4, `${before} of ${BURST} started first`);
    });
  }

  it("on established connections delays mainly its own requests", async (t) => {
    let probeClient: RawClient | undefined;
    const listener = await open(t, (count) => {
      if (count === 1) probeClient?.socket.write(ask(1, "/probe"));
    });
    [probeClient] = await openMany(t, listener, 1);
    assert.ok(probeClient);
    const clients = await openMany(t, listener, CONNECTIONS);
    await startSessions([probeClient, ...clients]);
    for (const client of clients) client.socket.write(burst("/"));
    await until(() => listener.started() === BURST, "the whole burst has started");
    const before = listener.startedBeforeProbe();
    assert.ok(before !== undefined && before < BURST / 4, `${before} of ${BURST} started first`);
  });

  it("may violate the protocol while it is queued", async (t) => {
    let late: RawClient[] = [];
    const nonsense = frame(FRAME.data, 0, 0);
    const listener = await open(t, (count) => {
      // More invalid frames arrive while the connections are queued.
      if (count === BURST / 2) for (const client of late) client.socket.write(nonsense);
    });
    const clients = await openMany(t, listener, CONNECTIONS);
    late = await openMany(t, listener, CONNECTIONS);
    for (const client of clients) client.socket.write(Buffer.concat([HELLO, burst("/fast")]));
    for (const client of late) client.socket.write(Buffer.concat([HELLO, nonsense]));
    await until(() => listener.started() === BURST, "the whole burst has started");
    await until(
      () => late.every((client) => !client.isOpen),
      "the connections that violated the protocol are closed",
    );
  });
});
