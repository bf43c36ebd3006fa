import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { type Client, Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import { createGrpcWebTransport as createBrowserTransport } from "@connectrpc/connect-web";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { SEND } from "../access/raw-request.ts";
import { startTestApp, type TestApp } from "../support/app.ts";

/** StockService under a name that the server does not have, and its methods under theirs. */
const MissingService = missing(StockService, { typeName: "inventory.v1.MissingService" });
/** StockService with method names that it does not have. */
const MissingMethods = missing(StockService, { methodSuffix: "X" });

function missing<S extends typeof StockService>(
  service: S,
  { typeName = service.typeName as string, methodSuffix = "" },
): S {
  const parent = { ...service, typeName } as S;
  const rename = (method: object & { readonly name: string }): object => ({
    ...method,
    name: `${method.name}${methodSuffix}`,
    parent,
  });
  return Object.assign(parent, {
    methods: service.methods.map(rename),
    method: Object.fromEntries(Object.entries(service.method).map(([key, method]) => [key, rename(method)])),
  });
}

type Options = { readonly baseUrl: string; readonly useBinaryFormat: boolean };
const TRANSPORTS: Readonly<Record<string, (options: Options) => Transport>> = {
  gRPC: createGrpcTransport,
  "gRPC-Web over HTTP/1.1": (options) => createGrpcWebTransport({ ...options, httpVersion: "1.1" }),
  "gRPC-Web over HTTP/2": (options) => createGrpcWebTransport({ ...options, httpVersion: "2" }),
  "gRPC-Web in a browser's transport": createBrowserTransport,
  "Connect over HTTP/1.1": (options) => createConnectTransport({ ...options, httpVersion: "1.1" }),
  "Connect over HTTP/2": (options) => createConnectTransport({ ...options, httpVersion: "2" }),
  "Connect GET": (options) => createConnectTransport({ ...options, httpVersion: "1.1", useHttpGet: true }),
};

for (const LANE of ["on", "off"]) {
  describe(`unknown methods, LANE=${LANE}`, { concurrency: true }, () => {
    let app: TestApp;
    before(async () => {
      app = await startTestApp({ LANE });
    });
    after(() => app?.stop());

    for (const [name, create] of Object.entries(TRANSPORTS)) {
      for (const useBinaryFormat of [true, false]) {
        it(`${name}, ${useBinaryFormat ? "binary" : "JSON"}: UNIMPLEMENTED with the path, for unary calls and streams`, async () => {
          const transport = create({ baseUrl: app.url, useBinaryFormat });
          for (const service of [MissingService, MissingMethods]) {
            const client: Client<typeof StockService> = createClient(service, transport);
            await assertUnimplemented(client.getStock({ productId: "p1" }), service.method.getStock.name);
            await assertUnimplemented(
              Array.fromAsync(client.watchStock({ productIds: ["p1"] })),
              service.method.watchStock.name,
            );
          }
        });
      }
    }

    const UNKNOWN = "/inventory.v1.StockService/Nothing";
    for (const version of ["1.1", "2"] as const) {
      for (const type of ["application/grpc-web-text", "application/grpc-web-text+proto"]) {
        it(`${type} over HTTP/${version}: UNIMPLEMENTED in base64`, async () => {
          const response = await post(version, UNKNOWN, type);
          assert.deepEqual([response.status, response.headers["content-type"]], [200, type]);
          const body = Buffer.from(response.body.toString(), "base64").toString("latin1");
          assert.match(body, /^\x80.{4}.*grpc-status: 12/s);
        });
      }

      it(`text or no content type over HTTP/${version}: 404 in plain text`, async () => {
        for (const type of ["text/plain", ""]) {
          const response = await post(version, UNKNOWN, type);
          assert.deepEqual(
            [response.status, response.headers["content-type"]],
            [404, "text/plain; charset=utf-8"],
          );
          assert.match(response.body.toString(), /\w/);
        }
      });
    }

    for (const subtype of ["", "+proto", "+json", "+thrift"]) {
      it(`application/grpc${subtype}: UNIMPLEMENTED with this content type, in the only HEADERS frame`, async () => {
        const type = `application/grpc${subtype}`;
        for (const path of [UNKNOWN, "/", "/healthz"]) {
          const { status, headers, body } = await post("2", path, type);
          assert.deepEqual(
            [status, headers["content-type"], headers["grpc-status"]],
            [200, type, "12"],
            path,
          );
          assert.equal(headers["grpc-message"], `There is no method ${path}`);
          assert.equal(body.length, 0);
        }
      });
    }

    const post = (version: keyof typeof SEND, path: string, type: string) =>
      SEND[version](app.port, {
        method: "POST",
        path,
        headers: { "content-type": type, te: "trailers" },
        body: "",
      });
  });
}

async function assertUnimplemented(call: Promise<unknown>, method: string): Promise<void> {
  await assert.rejects(call, (error: unknown) => {
    const { code, rawMessage } = ConnectError.from(error);
    assert.deepEqual([Code[code], rawMessage.includes(method)], ["Unimplemented", true], String(error));
    return true;
  });
}
