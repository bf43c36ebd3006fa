import { createServer, type Server } from "node:net";

/** The system uses ports from 32768 (Linux) or 49152 (elsewhere) for outgoing connections. */
const lowestPort = 15_000;
const highestPort = 32_767;
/** Ports reserved for one process; it listens on the first of them as a lock. More than any test file needs. */
const sharePorts = 128;
const shares = Math.floor((highestPort - lowestPort + 1) / sharePorts);
const attemptsMax = 100;

let share: Promise<number> | undefined;
let given = 0;

/**
 * A free port on 127.0.0.1, below the range of outgoing connections: a server that is killed and restarted gets its port again,
 * because no client connection can have it. No other test gets it while this process runs. An unrelated program may still
 * take it first, so callers retry with another port where they can.
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

/** The first port of an unused range. This process listens on it until it exits, which reserves the range. */
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

/** Whether a server could listen on this port of 127.0.0.1 now. */
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
