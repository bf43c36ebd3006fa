import { connect } from "node:http2";
import { setTimeout as pause } from "node:timers/promises";
import type { Attack } from "./attack.ts";
import {
  END_HEADERS,
  FRAME,
  frame,
  PREFACE,
  postBlock,
  postHead,
  RawClient,
  SETTINGS,
} from "./raw-client.ts";

// Clients that occupy resources with little traffic.

const GET_STOCK = "/inventory.v1.StockService/GetStock";
const LIST_STOCK = "/inventory.v1.StockService/ListStock";
const WATCH_STOCK = "/inventory.v1.StockService/WatchStock";
const RESERVE = "/inventory.v1.ReservationService/Reserve";
const HEALTH_WATCH = "/grpc.health.v1.Health/Watch";
const HELLO = Buffer.concat([PREFACE, SETTINGS]);
const STREAMS_PER_CONNECTION = 100;

/** Heads and bodies of both HTTP versions, one byte at a time. */
export const slowLoris: Attack = async ({ port, times, durationMs }) => {
  const head2 = frame(FRAME.headers, END_HEADERS, 1, postBlock(GET_STOCK));
  const slow = [
    { start: "", drip: Buffer.from(`GET /healthz HTTP/1.1\r\nHost: a\r\nX-A: ${"a".repeat(1_000)}`) },
    {
      start: postHead(GET_STOCK, { "content-type": "application/json", "content-length": 1_000 }),
      drip: Buffer.alloc(900, " "),
    },
    { start: PREFACE, drip: Buffer.concat([SETTINGS, head2.subarray(0, -1)]) },
    { start: Buffer.concat([HELLO, head2]), drip: frame(FRAME.data, 0, 1, Buffer.alloc(900)) },
  ];
  const clients = await RawClient.openMany(port, 100 * times);
  for (const client of clients) {
    client.read();
  }
  await Promise.all(clients.map((client, each) => client.send(slow[each % slow.length]?.start ?? "")));
  const until = performance.now() + durationMs;
  let rounds = 0;
  for (; performance.now() < until; rounds += 1) {
    for (const [each, client] of clients.entries()) {
      const { drip } = slow[each % slow.length] ?? {};
      if (drip !== undefined && rounds < drip.length - 1 && client.isOpen) {
        client.socket.write(drip.subarray(rounds, rounds + 1));
      }
    }
    await pause(50);
  }
  const cut = clients.filter((client) => !client.isOpen).length;
  release(clients);
  return `${clients.length} connections, ${rounds} bytes each, ${cut} cut within ${durationMs} ms`;
};

/** Silent connections in one of three states. */
export const idleConnections: Attack = async ({ port, isLong, durationMs }) => {
  const starts = ["", HELLO, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"];
  const clients: RawClient[] = [];
  // Below the limit, so that other clients can connect.
  const count = isLong ? 9_900 : 1_500;
  while (clients.length < count) {
    const batch = await RawClient.openMany(port, 100);
    clients.push(...batch);
    await Promise.all(batch.map((client, each) => client.read().send(starts[each % starts.length] ?? "")));
  }
  await pause(durationMs);
  const open = clients.filter((client) => client.isOpen).length;
  release(clients);
  return `${clients.length} connections, ${open} open after ${durationMs} ms`;
};

/** Readers with a zero window that request the longest responses, and one that sends requests without reading responses. */
export const zeroWindowReaders: Attack = async ({ port, times, durationMs }) => {
  const sessions = Array.from({ length: 10 * times }, () =>
    connect(`http://127.0.0.1:${port}`, { settings: { initialWindowSize: 0 } }),
  );
  let streams = 0;
  for (const session of sessions) {
    session.on("error", () => undefined);
    for (let each = 0; each < STREAMS_PER_CONNECTION; each += 1) {
      const isWatch = each % 2 === 0;
      const stream = session.request({
        ":method": "POST",
        ":path": isWatch ? WATCH_STOCK : LIST_STOCK,
        "content-type": isWatch ? "application/grpc" : "application/json",
        te: "trailers",
      });
      stream.on("error", () => undefined);
      stream.end(isWatch ? Buffer.alloc(5) : '{"pageSize":1000}');
      streams += 1;
    }
  }
  const body = '{"pageSize":1000}';
  const head = { "content-type": "application/json", "content-length": body.length };
  const pipeline = `${postHead(LIST_STOCK, head)}${body}`.repeat(500);
  const clients = await RawClient.openMany(port, 5 * times);
  await Promise.all(clients.map((client) => client.send(pipeline, durationMs)));
  await pause(durationMs);
  release(clients);
  for (const session of sessions) {
    session.destroy();
  }
  return `${streams} streams, and 500 requests at once on ${clients.length} connections`;
};

/** Streams without a request message: reads, watches, probes. */
export const streamsLeft: Attack = async ({ port, times, durationMs }) => {
  const paths = [GET_STOCK, WATCH_STOCK, HEALTH_WATCH, RESERVE];
  const clients = await RawClient.openMany(port, 40 * times);
  for (const [index, client] of clients.entries()) {
    const path = paths[index % paths.length] ?? GET_STOCK;
    const streams = Array.from({ length: STREAMS_PER_CONNECTION }, (_, each) =>
      frame(FRAME.headers, END_HEADERS, 2 * each + 1, postBlock(path)),
    );
    await client.read().send(Buffer.concat([HELLO, ...streams]));
  }
  await pause(durationMs);
  release(clients);
  return `${clients.length * STREAMS_PER_CONNECTION} streams on ${clients.length} connections`;
};

/** Wrong tokens from private and public addresses, on the fast path and the Connect path, without reading the refusals. */
export const badTokens: Attack = async ({ port, times }) => {
  let guesses = 0;
  for (const [type, address] of [
    ["application/grpc", "203.0.113.7"],
    ["application/grpc", "10.1.2.3"],
    ["application/grpc+json", "203.0.113.8"],
    ["application/json", "10.1.2.4"],
  ] as const) {
    const session = connect(`http://127.0.0.1:${port}`, { settings: { initialWindowSize: 0 } });
    session.on("error", () => undefined);
    for (let each = 0; each < 500 * times; each += 1) {
      const stream = session.request({
        ":method": "POST",
        ":path": RESERVE,
        "content-type": type,
        "x-forwarded-for": address,
        authorization: `Bearer guess-${each}`,
        te: "trailers",
      });
      stream.on("error", () => undefined);
      stream.resume();
      stream.end();
      guesses += 1;
      if (each % STREAMS_PER_CONNECTION === STREAMS_PER_CONNECTION - 1) {
        await pause(10);
      }
    }
    await pause(100);
    session.destroy();
  }
  return `${guesses} guesses`;
};

function release(clients: readonly RawClient[]): void {
  for (const client of clients) {
    client[Symbol.dispose]();
  }
}
