import { request } from "node:http";
import { connect } from "node:http2";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
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

// Messages that are too large, or become too large when decompressed.

const GET_STOCK = "/inventory.v1.StockService/GetStock";
const MIB = 1_048_576;

/** Messages with a declared length of 4 GiB, and endless bodies. */
export const giantMessages: Attack = async ({ port, times }) => {
  const chunk = Buffer.alloc(16_384);
  const prefix = Buffer.of(0, 0xff, 0xff, 0xff, 0xff);
  let sent = 0;
  const chunked = postHead(GET_STOCK, {
    "content-type": "application/json",
    "transfer-encoding": "chunked",
  });
  const announced = postHead(GET_STOCK, {
    "content-type": "application/json",
    "content-length": 4_000_000_000,
  });
  for (let round = 0; round < 2 * times; round += 1) {
    for (const [head, part] of [
      [chunked, Buffer.concat([Buffer.from("4000\r\n"), chunk, Buffer.from("\r\n")])],
      [announced, chunk],
    ] as const) {
      using client = (await RawClient.open(port)).read();
      await client.send(head);
      for (let each = 0; each < 1_000 && client.isOpen; each += 1) {
        await client.send(part, 100);
        sent += part.length;
      }
    }
    using client = (await RawClient.open(port)).read();
    const hello = frame(FRAME.headers, END_HEADERS, 1, postBlock(GET_STOCK));
    await client.send(Buffer.concat([PREFACE, SETTINGS, hello, frame(FRAME.data, 0, 1, prefix)]));
    // Ignores flow control: the server may close such connections.
    for (let each = 0; each < 1_000 && client.isOpen; each += 1) {
      await client.send(frame(FRAME.data, 0, 1, chunk), 100);
      sent += chunk.length;
    }
  }
  return `${Math.round(sent / MIB)} MiB offered`;
};

/** Zeros compressed to a thousandth of their size, as a Connect body and as a gRPC message. */
export const compressedBombs: Attack = async ({ port, times, isLong }) => {
  const zeros = Buffer.alloc((isLong ? 512 : 256) * MIB);
  const bombs = [
    { encoding: "gzip", bomb: gzipSync(zeros, { level: 1 }) },
    {
      encoding: "br",
      bomb: brotliCompressSync(zeros, { params: { [constants.BROTLI_PARAM_QUALITY]: 1 } }),
    },
  ];
  const answers = new Set<string>();
  for (let round = 0; round < times; round += 1) {
    const calls = bombs.flatMap(({ encoding, bomb }) =>
      [1, 2, 3, 4].flatMap(() => [
        postConnect(port, encoding, bomb, "application/proto"),
        postConnect(port, encoding, bomb, "application/json"),
        postGrpc(port, encoding, bomb),
      ]),
    );
    for (const answer of await Promise.all(calls)) {
      answers.add(answer);
    }
  }
  const refusals = ["HTTP 429", "grpc-status 8"];
  if ([...answers].some((answer) => !refusals.includes(answer))) {
    throw new Error(`compressed bombs were answered with ${[...answers].join(", ")}`);
  }
  return `${24 * times} bombs of ${zeros.length / MIB} MiB, answered ${[...answers].join(" and ")}`;
};

function postConnect(port: number, encoding: string, body: Buffer, type: string): Promise<string> {
  return new Promise((resolve) => {
    const call = request(
      { port, host: "127.0.0.1", method: "POST", path: GET_STOCK, agent: false },
      (answer) => {
        answer.resume();
        answer.once("close", () => {
          resolve(`HTTP ${answer.statusCode}`);
          call.destroy();
        });
      },
    );
    call.on("error", (error) => resolve(error.message));
    // Otherwise the server closes with the response, and a client that still sends may be reset before it has read it.
    call.setHeader("connection", "keep-alive");
    call.setHeader("content-type", type);
    call.setHeader("content-encoding", encoding);
    call.setHeader("content-length", body.length);
    call.end(body);
  });
}

function postGrpc(port: number, encoding: string, bomb: Buffer): Promise<string> {
  const prefix = Buffer.alloc(5);
  prefix[0] = 1;
  prefix.writeUInt32BE(bomb.length, 1);
  return new Promise((resolve) => {
    const session = connect(`http://127.0.0.1:${port}`);
    session.on("error", () => undefined);
    const stream = session.request({
      ":method": "POST",
      ":path": GET_STOCK,
      "content-type": "application/grpc",
      "grpc-encoding": encoding,
      te: "trailers",
    });
    let status = "none";
    const note = (headers: object): void => {
      status = String(Reflect.get(headers, "grpc-status") ?? status);
    };
    stream.on("response", note);
    stream.on("trailers", note);
    stream.on("error", () => undefined);
    stream.once("close", () => {
      session.destroy();
      resolve(`grpc-status ${status}`);
    });
    stream.resume();
    stream.end(Buffer.concat([prefix, bomb]));
  });
}
