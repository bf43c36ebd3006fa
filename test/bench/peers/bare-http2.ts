import { createServer, type ServerHttp2Stream } from "node:http2";

// What node:http2 can do: every stream is answered at once with the bytes of BODY (base64), whatever it asked.

const body = Buffer.from(process.env["BODY"] ?? "", "base64");
const server = createServer();
server.on("stream", (stream: ServerHttp2Stream) => {
  stream.resume();
  stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
  stream.once("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  stream.end(body);
});
server.listen(Number(process.env["PORT"]), "127.0.0.1");
