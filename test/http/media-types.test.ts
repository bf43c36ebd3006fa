import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { brotliDecompressSync, gunzipSync, gzipSync } from "node:zlib";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  GetStockRequestSchema,
  GetStockResponseSchema,
  WatchStockRequestSchema,
} from "../../gen/inventory/v1/stock_pb.ts";
import { type RawAnswer, type RawRequest, SEND } from "../access/raw-request.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { SMALL_SHOP, shopAt } from "../web/shop.ts";

const STOCK = "/inventory.v1.StockService";
const PRODUCT = "mug";
const JSON_REQUEST = JSON.stringify({ productId: PRODUCT });
const PROTO_REQUEST = Buffer.from(
  toBinary(GetStockRequestSchema, create(GetStockRequestSchema, { productId: PRODUCT })),
);
/** A watch of more products than it may have: it ends at once, with an error in the protocol's own end of a stream. */
const REFUSED_WATCH = {
  json: JSON.stringify({ productIds: [""] }),
  proto: Buffer.from(
    toBinary(WatchStockRequestSchema, create(WatchStockRequestSchema, { productIds: [""] })),
  ),
};

function envelope(data: string | Buffer, flags = 0): Buffer {
  const head = Buffer.alloc(5);
  head[0] = flags;
  head.writeUInt32BE(Buffer.byteLength(data), 1);
  return Buffer.concat([head, Buffer.from(data)]);
}

interface Codec {
  readonly path: string;
  readonly body: string | Buffer;
  readonly needsHttp2: boolean;
  readonly isJson: boolean;
  /** Whether a response is what this codec has for the request. */
  readonly isServed: (response: RawAnswer) => boolean;
}

const isUnary =
  (read: (body: Buffer) => string) =>
  ({ status, body }: RawAnswer): boolean =>
    status === 200 && read(body) === PRODUCT;
const readJson = (body: Buffer): string => JSON.parse(body.toString()).stock.productId;
const readProto = (body: Buffer): string => fromBinary(GetStockResponseSchema, body).stock?.productId ?? "";
const open = (body: Buffer): Buffer => body.subarray(5, 5 + body.readUInt32BE(1));
const isInvalidArgument = ({ status, body, headers }: RawAnswer): boolean =>
  status === 200 &&
  /grpc-status: ?3|"invalid_argument"/.test(`${body} grpc-status:${headers["grpc-status"]}`);

const CODECS: Readonly<Record<string, Codec>> = {
  "application/json": {
    path: `${STOCK}/GetStock`,
    body: JSON_REQUEST,
    needsHttp2: false,
    isJson: true,
    isServed: isUnary(readJson),
  },
  "application/proto": {
    path: `${STOCK}/GetStock`,
    body: PROTO_REQUEST,
    needsHttp2: false,
    isJson: false,
    isServed: isUnary(readProto),
  },
  ...Object.fromEntries(
    ["application/grpc", "application/grpc-web"].flatMap((type) =>
      ["", "+proto", "+json"].map((subtype): [string, Codec] => [
        `${type}${subtype}`,
        {
          path: `${STOCK}/GetStock`,
          body: envelope(subtype === "+json" ? JSON_REQUEST : PROTO_REQUEST),
          needsHttp2: type === "application/grpc",
          isJson: subtype === "+json",
          isServed: isUnary((body) => (subtype === "+json" ? readJson : readProto)(open(body))),
        },
      ]),
    ),
  ),
  ...Object.fromEntries(
    (["json", "proto"] as const).map((subtype): [string, Codec] => [
      `application/connect+${subtype}`,
      {
        path: `${STOCK}/WatchStock`,
        body: envelope(REFUSED_WATCH[subtype]),
        needsHttp2: false,
        isJson: subtype === "json",
        isServed: isInvalidArgument,
      },
    ]),
  ),
};

/** Legal spellings of a media type (RFC 9110, sections 5.6.6 and 8.3.1). */
const SPELLINGS: readonly ((type: string) => string)[] = [
  (type) => type,
  (type) => type.toUpperCase(),
  (type) => type.replace("application", "Application"),
  (type) => `${type};charset=utf-8`,
  (type) => `${type}; charset=utf-8`,
  (type) => `${type} ; charset=utf-8`,
  (type) => `${type};\tcharset=UTF-8`,
  (type) => `${type}; Charset=Utf-8`,
  (type) => `${type}; charset="utf-8"`,
  (type) => `${type}; charset="UTF-8"`,
  (type) => `${type}; charset="utf\\-8"`,
  (type) => `${type};`,
  (type) => `${type}; `,
  (type) => `${type} ;; ;`,
  (type) => `${type}; charset=utf-8;`,
  (type) => `${type}; version=1`,
  (type) => `${type}; charset=utf-8; version=1; note="a;b, \\"c\\""`,
  (type) => `${type}; note="charset=latin1"; charset=utf-8`,
];
/** Media types that are not legal, or not those of a codec. */
const OTHERS: readonly ((type: string) => string)[] = [
  (type) => `${type}; charset`,
  (type) => `${type}; charset = utf-8`,
  (type) => `${type}; charset="utf-8`,
  (type) => `${type}, ${type}`,
  (type) => `${type}x`,
  (type) => type.replace("/", ""),
  () => "text/plain",
  () => "",
];
const OTHER_CHARSETS = ["latin1", "utf-16", '"iso-8859-1"', "'utf-8'"];

for (const LANE of ["on", "off"]) {
  describe(`content types and codings, LANE=${LANE}`, { concurrency: true }, () => {
    let app: TestApp;
    before(async () => {
      app = await startTestApp({ LANE });
      const shop = shopAt(app.url);
      await shop.put(...SMALL_SHOP);
      shop.close();
    });
    after(() => app?.stop());

    const send = (
      version: keyof typeof SEND,
      { path, body }: Pick<Codec, "path" | "body">,
      headers: RawRequest["headers"],
    ): Promise<RawAnswer> =>
      SEND[version](app.port, { method: "POST", path, headers: { te: "trailers", ...headers }, body });

    for (const [type, codec] of Object.entries(CODECS)) {
      for (const version of codec.needsHttp2 ? (["2"] as const) : (["1.1", "2"] as const)) {
        it(`${type} over HTTP/${version} is served in every legal spelling`, async () => {
          for (const spell of SPELLINGS) {
            // HTTP/2 has no whitespace around a field value (RFC 9113, section 8.2.1).
            if (version === "2" && spell(type).endsWith(" ")) continue;
            const response = await send(version, codec, { "content-type": spell(type) });
            assert.ok(codec.isServed(response), `${spell(type)}: ${response.status} ${response.body}`);
          }
        });

        it(`${type} over HTTP/${version} in other spellings is refused with a reason`, async () => {
          const charsets = OTHER_CHARSETS.map((charset) => `${type}; charset=${charset}`);
          const refused = [...OTHERS.map((spell) => spell(type)), ...(codec.isJson ? charsets : [])];
          for (const spelling of refused) {
            const response = await send(version, codec, { "content-type": spelling });
            assertUnsupported(response, spelling);
          }
          if (!codec.isJson) {
            for (const spelling of charsets) {
              const response = await send(version, codec, { "content-type": spelling });
              assert.ok(codec.isServed(response), `${spelling}: not text, so a charset means nothing`);
            }
          }
        });
      }
    }

    it("a Connect GET is served with any content type, since it has no content", async () => {
      const query = `?connect=v1&encoding=json&message=${encodeURIComponent(JSON_REQUEST)}`;
      for (const version of ["1.1", "2"] as const) {
        const response = await SEND[version](app.port, {
          method: "GET",
          path: `${STOCK}/GetStock${query}`,
          headers: { "content-type": "text/plain" },
          body: "",
        });
        assert.equal(response.status, 200, response.body.toString());
      }
    });

    for (const version of ["1.1", "2"] as const) {
      const json = { path: `${STOCK}/GetStock`, body: JSON_REQUEST };
      const big = {
        path: `${STOCK}/BatchGetStock`,
        body: JSON.stringify({ productIds: Array(100).fill(PRODUCT) }),
      };

      it(`content codings of requests over HTTP/${version} are case-insensitive`, async () => {
        for (const coding of ["gzip", "GZIP", "x-gzip", "X-Gzip", "identity", "Identity"]) {
          const body = /gzip/i.test(coding) ? gzipSync(json.body) : json.body;
          const response = await send(
            version,
            { ...json, body },
            {
              "content-type": "application/json",
              "content-encoding": coding,
              "accept-encoding": "identity",
            },
          );
          assert.equal(response.status, 200, `${coding}: ${response.body}`);
        }
        for (const coding of ["gzip", "GZIP"]) {
          const response = await send(
            version,
            { path: json.path, body: envelope(gzipSync(PROTO_REQUEST), 1) },
            {
              "content-type": "application/grpc-web+proto",
              "grpc-encoding": coding,
              "grpc-accept-encoding": "identity",
            },
          );
          assert.equal(readProto(open(response.body)), PRODUCT, coding);
        }
      });

      /** What the client accepts, and the coding that it gets. */
      const ACCEPTED: readonly (readonly [accept: string, coding: string | undefined])[] = [
        ["gzip", "gzip"],
        ["GZIP", "gzip"],
        ["Gzip;q=1.0", "gzip"],
        ["gzip;q=0.5, br;q=1", "br"],
        ["br;q=0.2, gzip;q=0.9", "gzip"],
        ["gzip;q=0", undefined],
        ["gzip;Q=0, identity", undefined],
        ["*", "br"],
        ["*;q=0", undefined],
        ["br;q=0, *", "gzip"],
        ["gzip;q=0, *;q=0.1", "br"],
        ["deflate, zstd", undefined],
        ["", undefined],
      ];
      it(`codings of responses over HTTP/${version} are those that the client accepts`, async () => {
        for (const [accept, coding] of ACCEPTED) {
          const { headers, body } = await send(version, big, {
            "content-type": "application/json",
            "accept-encoding": accept,
          });
          assert.equal(headers["content-encoding"], coding, accept);
          const text =
            coding === "gzip" ? gunzipSync(body) : coding === "br" ? brotliDecompressSync(body) : body;
          assert.match(text.toString(), /^\{.*mug.*\}$/, accept);
        }
      });
    }
  });
}

/** A refusal names what the request had and what is supported: 415, or for gRPC clients UNIMPLEMENTED in their own protocol. */
function assertUnsupported({ status, headers, body }: RawAnswer, spelling: string): void {
  const type = String(headers["content-type"]);
  const text = decodeURIComponent(`${body} ${headers["grpc-message"] ?? ""}`.replaceAll("%\u0000", ""));
  assert.match(text, /(content type is|no content type).*application\/(connect\+)?json/s, spelling);
  if (status === 200) {
    assert.match(type, /^application\/grpc/, spelling);
    assert.match(`${body} grpc-status: ${headers["grpc-status"]}`, /grpc-status: ?12/, spelling);
    return;
  }
  assert.equal(status, 415, spelling);
  assert.match(String(headers["accept-post"]), /application\/grpc-web/, spelling);
  if (type === "application/json") {
    assert.equal(JSON.parse(body.toString()).code, "unknown", spelling);
  } else {
    assert.equal(type, "text/plain; charset=utf-8", spelling);
  }
}
