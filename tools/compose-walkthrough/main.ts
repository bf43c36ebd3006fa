/**
 * Runs docker-compose.yml as an operator would, and takes it down again: builds the image, opens the page, calls the service by each
 * of its protocols, writes with and without a token, sends a seller's message, stops and kills each container under reads and orders,
 * replaces the servers one after the other, and restarts everything. Fails if an acknowledged order is lost or done twice, or a
 * read fails that should not.
 *
 * `npm run compose:walkthrough -- cluster` adds docker-compose.cluster.yml.
 *
 * Ports 80 and 443 must be free. Docker is used if it responds, else podman, on storage of its own in the cache. WALKTHROUGH_PULL=off
 * pulls no image and takes stand-ins.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ConnectError } from "@connectrpc/connect";
import { type Engine, findEngine } from "./engine.ts";
import { redisVariant } from "./redis-variant.ts";
import { walk } from "./walk.ts";

const PORTS = [80, 443] as const;
const LOCK_PORT = 34_443;

const startMs = performance.now();
const abort = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => {
    say(`${signal}: taking everything down`);
    abort.abort();
  });
}

// A client session of connect-node that an edge closes while it is idle has no listener for its error.
process.on("uncaughtException", (error) => {
  if (error instanceof ConnectError) return;
  say(error.stack ?? String(error));
  abort.abort();
});

// Prevents concurrent runs: they use the same names, and `removeAll` would remove the other run.
const lock = createServer();
let engine: Engine | undefined;
const work = await mkdtemp(join(tmpdir(), "compose-walkthrough-"));
try {
  await holdLock(lock);
  engine = await findEngine(redisVariant(process.argv[2]), abort.signal, say);
  say(`Engine: ${engine.name}`);
  // Removes the containers and volumes of an interrupted run.
  await engine.removeAll();
  for (const port of PORTS) await expectFree(port);
  await walk(engine, work, say);
  say("Passed");
} catch (error) {
  process.exitCode = 1;
  say(`FAILED: ${error instanceof Error ? error.message : String(error)}`);
  if (engine !== undefined && !abort.signal.aborted) await saveLogs(engine);
} finally {
  if (engine !== undefined) {
    await engine.removeAll();
    say("Everything is down");
  }
  await rm(work, { recursive: true, force: true });
}
// Clients may still be connecting.
process.exit();

function say(line: string): void {
  const seconds = ((performance.now() - startMs) / 1_000).toFixed(0).padStart(4);
  process.stdout.write(`${seconds} s  ${line}\n`);
}

async function saveLogs(engine: Engine): Promise<void> {
  const names = await engine.containers();
  for (const name of names) {
    const { stdout, stderr } = await engine.try(["logs", "--tail", "8", name]);
    process.stderr.write(`--- ${name}\n${cut(stdout)}${cut(stderr)}\n`);
  }
}

function cut(text: string): string {
  return text.replaceAll(/^(.{300}).+$/gm, "$1…");
}

/** An abstract socket (unix(7)), which ends with the process; elsewhere a port of loopback. */
function holdLock(server: Server): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", () => reject(new Error("Another walk-through runs on this machine")));
    server.listen(process.platform === "linux" ? "\0inventory-walkthrough" : LOCK_PORT, () => resolve());
  });
}

function expectFree(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", () => reject(new Error(`Port ${port} is in use or may not be bound`)));
    server.listen(port, "0.0.0.0", () => server.close(() => resolve()));
  });
}
