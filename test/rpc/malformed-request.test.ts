import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { after, before, describe, it } from "node:test";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import { pino } from "pino";
import { GetStockRequestSchema, StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { until } from "../support/until.ts";
import {
  DIALECTS,
  type Dialect,
  envelope,
  STREAM_DIALECTS,
  statusOf,
  WireClient,
  type WireResponse,
  wireRequest,
} from "./parity-wire.ts";

const PATH = `/${StockService.typeName}/${StockService.method.getStock.name}`;
/** A length-delimited field without its content. */
const UNPARSABLE = Buffer.from([0x0a, 0x7f, 0x01]);

/** A product that does not exist, so that a request that is read ends with NOT_FOUND. */
const BINARY_MESSAGE = Buffer.from(
  toBinary(GetStockRequestSchema, create(GetStockRequestSchema, { productId: "p1" })),
);
const JSON_MESSAGE = Buffer.from('{"productId":"p1"}');

const cut = (bytes: Buffer): Buffer => bytes.subarray(0, -1);
const followedBy =
  (extra: string) =>
  (bytes: Buffer): Buffer =>
    Buffer.concat([bytes, Buffer.from(extra, "latin1")]);
const COMPRESSED: readonly (readonly [what: string, (message: Buffer) => Buffer, encoding: string])[] = [
  ["valid", gzipSync, "gzip"],
  ["valid", brotliCompressSync, "br"],
  ["cut off", (message) => cut(gzipSync(message)), "gzip"],
  ["cut off in its header", (message) => gzipSync(message).subarray(0, 3), "gzip"],
  ["with bytes after its end", (message) => followedBy("x")(gzipSync(message)), "gzip"],
  ["with zeros after its end", (message) => followedBy("\0\0")(gzipSync(message)), "gzip"],
  ["and no such data", (message) => message, "gzip"],
  ["cut off", (message) => cut(brotliCompressSync(message)), "br"],
  ["with bytes after its end", (message) => followedBy("x")(brotliCompressSync(message)), "br"],
  ["and no such data", () => Buffer.from("not brotli at all"), "br"],
];

const P1 = "%7B%22productId%22%3A%22p1%22%7D";
const BASE64_MESSAGE = envelope(BINARY_MESSAGE).toString("base64");
const BASE64_BODIES: readonly (readonly [what: string, text: string])[] = [
  ["has a character that is not base64", BASE64_MESSAGE.replace("A", "!")],
  ["has a line break", `${BASE64_MESSAGE}\r\n`],
  ["is URL-safe", `${BASE64_MESSAGE.slice(0, 4)}-_-_${BASE64_MESSAGE.slice(4)}`],
  [
    "is not padded",
    BASE64_MESSAGE.replace(/=+$/, "")
      .padEnd(BASE64_MESSAGE.length - 1, "A")
      .slice(0, -2),
  ],
  ["has padding alone", "===="],
  ["has padding within a group", `A=AA${BASE64_MESSAGE}`],
];

const GET_QUERIES: readonly (readonly [what: string, query: string])[] = [
  ["an unknown version", `connect=v2&encoding=json&message=${P1}`],
  ["an empty version", `connect=&encoding=json&message=${P1}`],
  ["no message", "connect=v1&encoding=proto"],
  ["two messages", `connect=v1&encoding=json&message=${P1}&message=${P1}`],
  ["two messages, one of them spelt %6dessage", `encoding=json&message=${P1}&%6dessage=${P1}`],
  ["two encodings", `connect=v1&encoding=json&encoding=proto&message=${P1}`],
  ["two versions", `connect=v1&connect=v1&encoding=json&message=${P1}`],
  ["an unknown value of base64", `connect=v1&encoding=json&base64=true&message=${P1}`],
  ["bytes that are not UTF-8", "encoding=json&message=%7B%22productId%22%3A%22caf%E9%22%7D"],
  ["a surrogate in UTF-8", "encoding=json&message=%7B%22productId%22%3A%22%ED%A0%80%22%7D"],
  ["an overlong encoding", "encoding=json&message=%7B%22productId%22%3A%22%C0%80%22%7D"],
  ["a percent sign that begins no escape", "encoding=json&message=%7B%22productId%22%3A%22100%%22%7D"],
  ["base64 with another character", "encoding=proto&base64=1&message=!"],
  ["base64 with a space", "encoding=proto&base64=1&message=CgJ%20wMQ"],
  ["base64 with a plus that is not escaped", "encoding=proto&base64=1&message=CgJ+MQ"],
  ["base64 of an impossible length", "encoding=proto&base64=1&message=CgJwM"],
  ["base64 with too little padding", "encoding=proto&base64=1&message=CgJwMQ="],
  ["base64 with padding in the middle", "encoding=proto&base64=1&message=Cg==cDE="],
];
/** Messages that decode to bytes that are not what the encoding says. */
const GET_MESSAGES: readonly (readonly [what: string, query: string])[] = [
  [
    "base64 of bytes that do not parse",
    `encoding=proto&base64=1&message=${UNPARSABLE.toString("base64url")}`,
  ],
  ["base64 of JSON that is not UTF-8", "encoding=json&base64=1&message=eyJwcm9kdWN0SWQiOiLpIn0"],
];

for (const LANE of ["on", "off"]) {
  describe(`a malformed request, with LANE=${LANE}`, () => {
    let app: TestApp;
    let client: WireClient;
    const logged: string[] = [];
    before(async () => {
      const keep = { write: (line: string) => void logged.push(line) };
      app = await startTestApp({ LANE }, { log: pino({ level: "error" }, keep) });
      client = new WireClient(app.port);
    });
    after(async () => {
      client.close();
      await app.stop();
    });

    function post(
      dialect: Dialect,
      body: Buffer,
      headers: Record<string, string> = {},
    ): Promise<WireResponse> {
      const all = { "content-type": dialect.contentType, te: "trailers", ...headers };
      return client.call(dialect.isHttp2, { path: PATH, headers: all, body });
    }

    for (const dialect of DIALECTS) {
      const name = `${dialect.name} over HTTP/${dialect.isHttp2 ? 2 : 1.1}`;

      it(`is INVALID_ARGUMENT in ${name}`, async () => {
        const body = dialect.isJson ? Buffer.from("{") : UNPARSABLE;
        const response = await post(dialect, dialect.isEnveloped ? envelope(body) : body);
        assert.equal(statusOf(dialect, response), "INVALID_ARGUMENT");
        assert.equal(response.status, dialect.isEnveloped ? 200 : 400);
      });

      it(`is refused where an ID is not UTF-8 in ${name}`, async () => {
        const id = Buffer.from("caf\xe9", "latin1");
        const body = dialect.isJson
          ? Buffer.concat([Buffer.from('{"productId":"'), id, Buffer.from('"}')])
          : Buffer.concat([Buffer.from([0x0a, id.length]), id]);
        const response = await post(dialect, dialect.isEnveloped ? envelope(body) : body);
        assert.equal(statusOf(dialect, response), "INVALID_ARGUMENT");
      });
    }

    for (const timeout of ["", "1", "S", "-1S", "1.5S", "1e3m", "123456789S", "1s", "1S,2S", "0x1S"]) {
      it(`is INVALID_ARGUMENT where the timeout is ${JSON.stringify(timeout)}`, async () => {
        for (const dialect of DIALECTS) {
          const message = Buffer.from(dialect.isJson ? "{}" : "");
          const response = await post(dialect, dialect.isEnveloped ? envelope(message) : message, {
            "grpc-timeout": timeout,
            "connect-timeout-ms": timeout === "1" ? "12345678901" : timeout,
          });
          assert.equal(statusOf(dialect, response), "INVALID_ARGUMENT", dialect.name);
        }
      });
    }

    it("is INVALID_ARGUMENT in a stream", async () => {
      const response = await client.call(true, {
        path: `/${StockService.typeName}/${StockService.method.watchStock.name}`,
        headers: { "content-type": "application/grpc", te: "trailers" },
        body: envelope(UNPARSABLE),
      });
      assert.equal(response.trailers["grpc-status"] ?? response.headers["grpc-status"], "3");
      assert.deepEqual(logged, []);
    });

    for (const [what, body, encoding] of COMPRESSED) {
      it(`${what === "valid" ? "is none" : "is INVALID_ARGUMENT"} where the message is ${encoding}, ${what}`, async () => {
        for (const dialect of DIALECTS) {
          const headers = dialect.isEnveloped
            ? { "grpc-encoding": encoding }
            : { "content-encoding": encoding };
          const data = dialect.isJson ? body(JSON_MESSAGE) : body(BINARY_MESSAGE);
          const response = await post(dialect, dialect.isEnveloped ? envelope(data, 1) : data, headers);
          assert.equal(
            statusOf(dialect, response),
            what === "valid" ? "NOT_FOUND" : "INVALID_ARGUMENT",
            dialect.name,
          );
        }
      });
    }

    it("is INVALID_ARGUMENT where an envelope has a flag that a request may not have", async () => {
      for (const dialect of DIALECTS.filter(({ isEnveloped }) => isEnveloped)) {
        for (const flags of [0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x81, 0xff]) {
          const response = await post(dialect, envelope(BINARY_MESSAGE, flags));
          assert.equal(statusOf(dialect, response), "INVALID_ARGUMENT", `${dialect.name} ${flags}`);
        }
      }
    });

    it("is INVALID_ARGUMENT where an envelope of a stream has such a flag, also after the message", async () => {
      for (const dialect of STREAM_DIALECTS) {
        const whole = wireRequest(dialect, StockService.method.watchStock, { productIds: [""] });
        for (const flags of [0x02, 0x80]) {
          for (const body of [
            envelope(whole.body.subarray(5), flags),
            Buffer.concat([whole.body, envelope(Buffer.alloc(0), flags)]),
          ]) {
            const response = await client.call(dialect.isHttp2, { ...whole, body });
            assert.equal(statusOf(dialect, response), "INVALID_ARGUMENT", `${dialect.name} ${flags}`);
            assert.match(response.body.toString() + JSON.stringify(response.trailers), /flags/);
          }
        }
      }
    });

    for (const [what, text] of BASE64_BODIES) {
      it(`is INVALID_ARGUMENT in gRPC-Web text where the body ${what}`, async () => {
        const response = await fetch(`${app.url}${PATH}`, {
          method: "POST",
          headers: { "content-type": "application/grpc-web-text" },
          body: text,
        });
        assert.equal(response.headers.get("content-type"), "application/grpc-web-text+proto");
        const trailers = Buffer.from(await response.text(), "base64").toString("latin1");
        assert.match(trailers, /grpc-status: 3/);
        assert.match(trailers, /base64/);
      });
    }

    for (const version of ["2", "", "1.0", "v1"]) {
      it(`is INVALID_ARGUMENT where connect-protocol-version is ${JSON.stringify(version)}`, async () => {
        for (const dialect of [...DIALECTS, ...STREAM_DIALECTS]) {
          const { path, ...rest } = wireRequest(
            dialect,
            STREAM_DIALECTS.includes(dialect) ? StockService.method.watchStock : StockService.method.getStock,
            STREAM_DIALECTS.includes(dialect) ? { productIds: [""] } : { productId: "p1" },
          );
          const headers = { ...rest.headers, "connect-protocol-version": version };
          const response = await client.call(dialect.isHttp2, { ...rest, path, headers });
          const text = response.body.toString();
          if (dialect.contentType.startsWith("application/grpc")) {
            assert.doesNotMatch(text, /protocol-version/, "a header of another protocol");
          } else {
            assert.equal(statusOf(dialect, response), "INVALID_ARGUMENT");
            assert.match(text, /connect-protocol-version is/);
          }
        }
      });
    }

    for (const [what, query] of [...GET_QUERIES, ...GET_MESSAGES]) {
      it(`is INVALID_ARGUMENT in a GET with ${what}`, async () => {
        const response = await fetch(`${app.url}${PATH}?${query}`);
        const { code, message } = JSON.parse(await response.text());
        assert.deepEqual([response.status, code], [400, "invalid_argument"]);
        // A product ID is refused in other words.
        assert.match(message, /query|cannot|parse|UTF-8/);
      });
    }

    for (const query of [
      "connect=v1&encoding=json&message=%7B%22productId%22%3A%22p1%22%7D",
      "encoding=json&message=%7B%22productId%22%3A%22p1%22%7D",
      "encoding=proto&base64=1&message=CgJwMQ",
      "encoding=proto&base64=1&message=CgJwMQ%3D%3D",
      "encoding=proto&base64=1&message=CgJwMQ==",
      "encoding=json&base64=1&message=eyJwcm9kdWN0SWQiOiJ-fj8_In0",
      "encoding=json&base64=1&message=eyJwcm9kdWN0SWQiOiJ%2Bfj8%2FIn0%3D",
      "other=%41&other=2&encoding=json&message=%7B%22productId%22%3A%22p1%22%7D",
    ]) {
      it(`is not reported for a GET with ${query}`, async () => {
        const response = await fetch(`${app.url}${PATH}?${query}`);
        assert.equal(JSON.parse(await response.text()).code, "not_found");
      });
    }

    for (const contentType of ["application/json", "application/grpc-web+proto"]) {
      it(`is discarded over HTTP/1.1 after an early response, and the next request is served: ${contentType}`, async () => {
        const socket = connect(app.port, "127.0.0.1");
        let received = "";
        socket.on("data", (data) => {
          received += data.toString("latin1");
        });
        const responses = (): number => received.split("HTTP/1.1 ").length - 1;
        const tooLong = envelope(Buffer.alloc(3 * 1_048_576));
        const head = `POST ${PATH} HTTP/1.1\r\nHost: ${app.address}\r\nContent-Type: `;
        socket.write(`${head}${contentType}\r\nContent-Length: ${tooLong.length}\r\n\r\n`);
        socket.write(tooLong.subarray(0, 2 * 1_048_576));
        await until(() => responses() === 1, "the request that is too large is refused");
        socket.write(tooLong.subarray(2 * 1_048_576));
        socket.write(`${head}application/json\r\nContent-Length: 18\r\n\r\n{"productId":"p1"}`);
        await until(() => responses() === 2, "the next request is served");
        socket.end();
        await once(socket, "close");
        assert.match(received, /resource_exhausted|grpc-status: 8/);
        assert.match(received, /not_found/);
      });
    }
  });
}
