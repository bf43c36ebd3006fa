import { createServer, type Server } from "node:net";

/** The system hands out ports from 32768 (Linux) or 49152 (elsewhere) for outgoing connections. */
const lowestPort = 15_000;
const highestPort = 32_767;
/** Ports of one process; the first of them says that they are its own. More than a test file asks for while one of its servers is down. */
const sharePorts = 128;
const shares = Math.floor((highestPort - lowestPort + 1) / sharePorts);
const attemptsMax = 100;

let share: Promise<number> | undefined;
let given = 0;

/**
 * A port on 127.0.0.1 that was free a moment ago, from below the range of outgoing connections: a server that is killed
 * gets its port back when it restarts, because no client can have been given it. No other test is given it while this process
 * lives. A program of somebody else may still take it first, so callers that can try again with another one.
 */
export async function freePort(): Promise<number> {
  share ??= takeShare();
  const first = await share;
  for (let attempt = 0; attempt < attemptsMax; attempt++) {
    const port = first + 1 + (given++ % (sharePorts - 1));
    if (await isFree(port)) return port;
  }
  throw new Error(`Cannot find a free port: ${attemptsMax} from ${first} on were taken`);
}

/** The first port of a share that no other process has: it listens there, for nobody, until it ends. */
async function takeShare(): Promise<number> {
  for (let attempt = 0; attempt < attemptsMax; attempt++) {
    const first = lowestPort + sharePorts * Math.floor(Math.random() * shares);
    const holder = createServer((socket) => socket.destroy());
    if (await listens(holder, first)) {
      holder.unref();
      return first;
    }
  }
  throw new Error(
    `Cannot find free ports: ${attemptsMax} shares between ${lowestPort} and ${highestPort} were taken`,
  );
}

/** True when a server could listen on that port of 127.0.0.1 now. */
export async function isFree(port: number): Promise<boolean> {
  const probe = createServer();
  const isListening = await listens(probe, port);
  if (isListening) await new Promise((resolve) => probe.close(resolve));
  return isListening;
}

function listens(server: Server, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    server.once("error", () => resolve(false));
    server.listen({ port, host: "127.0.0.1", exclusive: true }, () => resolve(true));
  });
}
