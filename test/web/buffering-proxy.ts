import { once } from "node:events";
import { createServer, request as forward } from "node:http";
import type { AddressInfo } from "node:net";

/** An HTTP/1.1 proxy that forwards a response only when it is complete, as some corporate proxies do: no stream gets through. */
export interface BufferingProxy extends AsyncDisposable {
  readonly url: string;
}

export async function startBufferingProxy(targetPort: number): Promise<BufferingProxy> {
  const server = createServer((request, response) => {
    const { method, url, headers } = request;
    const onward = forward(
      { host: "127.0.0.1", port: targetPort, method, path: url, headers },
      (upstream) => {
        const chunks: Buffer[] = [];
        upstream.on("data", (chunk: Buffer) => chunks.push(chunk));
        upstream.on("error", () => response.destroy());
        upstream.on("end", () => {
          response.writeHead(upstream.statusCode ?? 502, upstream.headers);
          response.end(Buffer.concat(chunks));
        });
      },
    );
    onward.on("error", () => response.destroy());
    response.on("close", () => onward.destroy());
    request.pipe(onward);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
    },
  };
}
