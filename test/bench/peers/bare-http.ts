import { createServer } from "node:http";

// The upper bound of node:http: responds to every request at once with the bytes of BODY (base64).

const body = Buffer.from(process.env["BODY"] ?? "", "base64");
const server = createServer((request, response) => {
  request.resume();
  response.writeHead(200, { "content-type": "application/json", "content-length": body.length });
  response.end(body);
});
server.listen(Number(process.env["PORT"]), "127.0.0.1");
