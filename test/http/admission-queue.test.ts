import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import { pino } from "pino";
import { type Listener, startListener } from "../../server/http/listener.ts";
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
const CROWD = CONNECTIONS * STREAMS;
/** What the server is made to spend on each of the crowd, so that they take a fifth of a second together. */
const COST_MS = 0.1;

interface Served extends Listener {
  /** How many of the crowd have begun. */
  begun(): number;
  /** How many of the crowd had begun when `/known` was asked for. */
  begunBeforeKnown(): number | undefined;
}

/** A listener whose streams below `/lane` are taken, as a lane's are, and whose other requests go to the handler. */
async function open(t: TestContext, onBegun: (count: number) => void): Promise<Served> {
  let begun = 0;
  let before: number | undefined;
  const serve = (path: string | undefined): void => {
    if (path?.endsWith("/known")) {
      before ??= begun;
      return;
    }
    begun += 1;
    onBegun(begun);
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
      const isTaken = path?.startsWith("/lane") === true;
      if (isTaken) {
        serve(path);
        stream.respond({ ":status": 200 }, { endStream: true });
      }
      return isTaken;
    },
    log: pino({ level: "silent" }),
  });
  t.after(() => listener.drain(0));
  return Object.assign(listener, { begun: () => begun, begunBeforeKnown: () => before });
}

function ask(stream: number, path: string, fields: Buffer = Buffer.alloc(0)): Buffer {
  const block = Buffer.concat([postBlock(path, "text/plain"), fields]);
  return frame(FRAME.headers, END_HEADERS | END_STREAM, stream, block);
}

/** Opens connections that the listener has accepted: libuv accepts one in a turn. */
async function openMany(t: TestContext, listener: Listener, count: number): Promise<RawClient[]> {
  const all = listener.connections() + count;
  const clients = await RawClient.openMany(listener.port, count);
  t.after(() => {
    for (const client of clients) client[Symbol.dispose]();
  });
  await until(() => listener.connections() === all, "all are accepted");
  return clients.map((client) => client.read());
}

/** Resolves when the server has read what each has sent. */
async function greeted(clients: readonly RawClient[]): Promise<void> {
  for (const client of clients) client.socket.write(HELLO);
  await until(
    () => clients.every((client) => client.received.length > 0),
    "the server has answered each SETTINGS",
  );
}

describe("a crowd that comes at once", () => {
  const crowd = (path: string): Buffer =>
    Buffer.concat(Array.from({ length: STREAMS }, (_, each) => ask(2 * each + 1, path)));

  for (const [path, known, fields] of [
    ["/lane", "/lane/known"],
    ["/", "/lane/known"],
    ["/", "/known"],
    ["/", "/known", field("authorization", "Bearer a")],
  ] as const) {
    const what = `${known}${fields === undefined ? "" : " of somebody with a name"}`;
    it(`for ${path} on new connections leaves room for ${what}`, async (t) => {
      let knownClient: RawClient | undefined;
      const listener = await open(t, (count) => {
        if (count === 1) knownClient?.socket.write(ask(1, known, fields));
      });
      [knownClient] = await openMany(t, listener, 1);
      assert.ok(knownClient);
      await greeted([knownClient]);
      const clients = await openMany(t, listener, CONNECTIONS);
      for (const client of clients) client.socket.write(Buffer.concat([HELLO, crowd(path)]));
      await until(() => listener.begun() === CROWD, "all of the crowd are let in");
      const before = listener.begunBeforeKnown();
      assert.ok(before !== undefined && before < CROWD / 4, `${before} of ${CROWD} came first`);
    });
  }

  it("on connections that were there delays itself where no lane takes it", async (t) => {
    let knownClient: RawClient | undefined;
    const listener = await open(t, (count) => {
      if (count === 1) knownClient?.socket.write(ask(1, "/known"));
    });
    [knownClient] = await openMany(t, listener, 1);
    assert.ok(knownClient);
    const clients = await openMany(t, listener, CONNECTIONS);
    await greeted([knownClient, ...clients]);
    for (const client of clients) client.socket.write(crowd("/"));
    await until(() => listener.begun() === CROWD, "all of the crowd are let in");
    const before = listener.begunBeforeKnown();
    assert.ok(before !== undefined && before < CROWD / 4, `${before} of ${CROWD} came first`);
  });

  it("may break the protocol while it waits", async (t) => {
    let late: RawClient[] = [];
    const nonsense = frame(FRAME.data, 0, 0);
    const listener = await open(t, (count) => {
      // More of it comes while the first waits for its turn.
      if (count === CROWD / 2) for (const client of late) client.socket.write(nonsense);
    });
    const clients = await openMany(t, listener, CONNECTIONS);
    late = await openMany(t, listener, CONNECTIONS);
    for (const client of clients) client.socket.write(Buffer.concat([HELLO, crowd("/lane")]));
    for (const client of late) client.socket.write(Buffer.concat([HELLO, nonsense]));
    await until(() => listener.begun() === CROWD, "all of the crowd are let in");
    await until(() => late.every((client) => !client.isOpen), "who broke the protocol is cut");
  });
});
