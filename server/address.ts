import { networkInterfaces } from "node:os";
import type { Config } from "./config.ts";

const WILDCARDS = ["0.0.0.0", "::"];

/** The URL of the port for clients on this machine, such as `http://127.0.0.1:8080`. */
export function localUrl(config: Config, port: number): string {
  return urlOf(config, WILDCARDS.includes(config.host) ? "localhost" : config.host, port);
}

/**
 * The URL of the port for people. If it listens on every address, it is the one of a network: in a
 * container, `localhost` would be the container itself.
 */
export function publicUrl(config: Config, port: number): string {
  const address = WILDCARDS.includes(config.host) ? networkAddress() : undefined;
  return address === undefined ? localUrl(config, port) : urlOf(config, address, port);
}

function urlOf({ tls }: Config, host: string, port: number): string {
  return `${tls ? "https" : "http"}://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

function networkAddress(): string | undefined {
  return Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .find(({ family, internal }) => family === "IPv4" && !internal)?.address;
}
