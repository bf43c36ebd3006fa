import { createServer as createHttp1Server, type ServerResponse } from "node:http";
import { createServer as createHttp2Server, type ServerHttp2Stream } from "node:http2";
import { create, toBinary } from "@bufbuild/protobuf";
import { WatchStockResponseSchema } from "../../../gen/inventory/v1/stock_pb.ts";
import { enveloped } from "../load/frames.ts";

// The upper bound of Node: a message is encoded once and written to all watchers, without backpressure. Every watch is of
// PRODUCT_ID, and every other call is a change of it. PROTOCOL is h1 or h2.

const WATCH = "/inventory.v1.StockService/WatchStock";
const productId = process.env["PRODUCT_ID"] ?? "";
const watchers = new Set<ServerResponse | ServerHttp2Stream>();
let version = 1;

function message(): Buffer {
  const stocks = [{ productId, available: 1_000_000_000 - version, version: BigInt(version) }];
  return enveloped(toBinary(WatchStockResponseSchema, create(WatchStockResponseSchema, { stocks })));
}

function watch(watcher: ServerResponse | ServerHttp2Stream): void {
  watchers.add(watcher);
  watcher.once("close", () => watchers.delete(watcher));
  watcher.on("error", () => {});
  watcher.write(message());
}

function change(): void {
  version += 1;
  const bytes = message();
  for (const watcher of watchers) {
    watcher.write(bytes);
  }
}

function startHttp1() {
  return createHttp1Server((request, response) => {
    request.resume();
    if (request.url === WATCH) {
      response.writeHead(200, { "content-type": "application/connect+proto" });
      watch(response);
    } else {
      change();
      response.writeHead(200, { "content-type": "application/json" }).end("{}");
    }
  });
}

function startHttp2() {
  return createHttp2Server().on("stream", (stream: ServerHttp2Stream, headers) => {
    stream.resume();
    stream.respond({ ":status": 200, "content-type": "application/grpc" });
    if (headers[":path"] === WATCH) {
      watch(stream);
    } else {
      change();
      stream.end(enveloped(Buffer.alloc(0)));
    }
  });
}

const server = process.env["PROTOCOL"] === "h1" ? startHttp1() : startHttp2();
server.listen(Number(process.env["PORT"]), "127.0.0.1");
