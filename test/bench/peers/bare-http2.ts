import { createServer, type ServerHttp2Stream } from "node:http2";

// The upper bound of node:http2: responds to every stream at once with the bytes of BODY (base64).

const body = Buffer.from(process.env["BODY"] ?? "", "base64");
const server = createServer();
server.on("stream", (stream: ServerHttp2Stream) => {
  stream.resume();
  stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
  stream.once("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  stream.end(body);
});
server.listen(Number(process.env["PORT"]), "127.0.0.1");
