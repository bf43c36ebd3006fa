import { once } from "node:events";
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Registry } from "prom-client";
import { type Health, READINESS_PATHS } from "./health.ts";

/** Scrapes and probes are small and fast. A slower request is closed. */
const REQUEST_MS_MAX = 5_000;
const CONNECTIONS_MAX = 64;

/** The HTTP server for operators. */
export interface AdminServer {
  /** `http://127.0.0.1:9090` */
  readonly url: string;
  stop(): Promise<void>;
}

interface AdminOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly registry: Registry;
  readonly health: Health;
}

/** Serves `/metrics`, `/healthz` and the paths of readiness on a separate port, which shoppers cannot reach. */
export async function startAdmin({ host, port, registry, health }: AdminOptions): Promise<AdminServer> {
  const server = createServer({ requestTimeout: REQUEST_MS_MAX }, (request, response) => {
    const [path = ""] = (request.url ?? "").split("?", 1);
    respond(path, registry, health, response).catch((error: unknown) => response.destroy(asError(error)));
  });
  server.maxConnections = CONNECTIONS_MAX;
  server.listen(port, host);
  await once(server, "listening");
  const { port: boundPort } = server.address() as AddressInfo;
  return {
    url: `http://${host.includes(":") ? `[${host}]` : host}:${boundPort}`,
    stop: () => stop(server),
  };
}

async function respond(
  path: string,
  registry: Registry,
  health: Health,
  response: ServerResponse,
): Promise<void> {
  if (path === "/metrics") {
    response.setHeader("content-type", registry.contentType);
    response.end(await registry.metrics());
  } else if (path === "/healthz") {
    response.end("ok\n");
  } else if (READINESS_PATHS.has(path)) {
    const report = await health.report(READINESS_PATHS.get(path));
    response.statusCode = report.ready ? 200 : 503;
    response.setHeader("content-type", "application/json");
    response.end(`${JSON.stringify(report)}\n`);
  } else {
    response.statusCode = 404;
    response.end("Not found\n");
  }
}

async function stop(server: Server): Promise<void> {
  const closed = once(server, "close");
  server.close();
  server.closeAllConnections();
  await closed;
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
