import { createServer } from "node:net";

/** The system hands out ports from 32768 (Linux) or 49152 (elsewhere) for outgoing connections. */
const lowestPort = 15_000;
const highestPort = 32_767;
const attemptsMax = 100;

/**
 * A port on 127.0.0.1 that was free a moment ago, from below the range of outgoing connections: a server that is killed
 * gets its port back when it restarts, because no client can have been given it. Another server may still take it first,
 * so callers try again with another one.
 */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < attemptsMax; attempt++) {
    const port = lowestPort + Math.floor(Math.random() * (highestPort - lowestPort + 1));
    if (await isFree(port)) return port;
  }
  throw new Error(
    `Cannot find a free port: ${attemptsMax} between ${lowestPort} and ${highestPort} were taken`,
  );
}

/** True when a server could listen on that port of 127.0.0.1 now. */
export function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once("error", () => resolve(false));
    probe.listen({ port, host: "127.0.0.1", exclusive: true }, () => probe.close(() => resolve(true)));
  });
}
