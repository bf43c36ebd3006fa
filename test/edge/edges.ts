import { execFile } from "node:child_process";
import { createHash, X509Certificate } from "node:crypto";
import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { connect as dial } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as dialTls } from "node:tls";
import { promisify } from "node:util";
import { freePort } from "../support/free-port.ts";
import { type Need, need } from "../support/programs.ts";
import { type ServerProcess, startServerProcess } from "../support/server-process.ts";
import { Hopeless, until } from "../support/until.ts";

const DELIVERED = join(import.meta.dirname, "../../deploy/edge");
const START_MS_MAX = 15_000;

export interface EdgeOptions {
  /** Ports on 127.0.0.1. */
  readonly upstreams: readonly number[];
  /** Ports of the servers for Orders; none unless given. */
  readonly writeUpstreams?: readonly number[];
  /** Idle timeout of streams and connections. The delivered value unless given. */
  readonly idleMs?: number;
  /** Networks that may write from outside. None, as delivered, unless given. */
  readonly writers?: string;
}

/** A running edge with the delivered configuration file. */
export interface Edge extends AsyncDisposable {
  /** `https://localhost:PORT` */
  readonly url: string;
  readonly port: number;
  /** PEM, and the hash of its key for Chromium. */
  readonly certificate: Buffer;
  readonly spki: string;
  readonly log: () => string;
  /** The port of plain HTTP. */
  readonly plainPort: number;
  /** Stops it as its container does. Resolves with `code 0`, or with what ended it otherwise. */
  readonly stopGracefully: () => Promise<string>;
}

export interface EdgeKind {
  readonly name: "Caddy" | "nginx" | "Envoy" | "HAProxy";
  readonly program: Need;
  readonly start: (options: EdgeOptions) => Promise<Edge>;
}

interface Place {
  readonly folder: string;
  readonly port: number;
  readonly plainPort: number;
  readonly cert: string;
  readonly key: string;
}

interface Command {
  readonly args: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
}

const addresses = (ports: readonly number[]): string => ports.map((port) => `127.0.0.1:${port}`).join(" ");

const caddy = edgeKind("Caddy", need("caddy"), async (place, options) => ({
  args: ["run", "--config", join(DELIVERED, "Caddyfile"), "--adapter", "caddyfile"],
  env: {
    EDGE_BIND: "127.0.0.1",
    EDGE_SITE: `https://localhost:${place.port}`,
    EDGE_HTTPS_PORT: String(place.port),
    EDGE_HTTP_PORT: String(place.plainPort),
    EDGE_TLS: `${place.cert} ${place.key}`,
    EDGE_UPSTREAMS: addresses(options.upstreams),
    EDGE_HEALTH_INTERVAL: "200ms",
    ...(options.writeUpstreams !== undefined && {
      EDGE_WRITE_UPSTREAMS: addresses(options.writeUpstreams),
    }),
    ...(options.idleMs !== undefined && { EDGE_IDLE: `${options.idleMs}ms` }),
    ...(options.writers !== undefined && { EDGE_WRITERS: options.writers }),
    XDG_DATA_HOME: place.folder,
    XDG_CONFIG_HOME: place.folder,
  },
}));

const nginx = edgeKind("nginx", need("nginx"), async (place, options) => {
  const { upstreams, writeUpstreams = [], idleMs, writers } = options;
  const servers = (ports: readonly number[], parameters = ""): string =>
    ports.map((port) => `server 127.0.0.1:${port} max_fails=1 fail_timeout=2s${parameters};`).join("\n");
  const config = await render("nginx.conf", place.folder, [
    ["/var/cache/nginx", place.folder],
    ["worker_processes auto;", "worker_processes 1;"],
    ["worker_rlimit_nofile 65536;", ""],
    ["listen 80;", `listen 127.0.0.1:${place.plainPort};`],
    ["listen [::]:80;", ""],
    ["listen 443 ssl http2;", `listen 127.0.0.1:${place.port} ssl http2;`],
    ["listen [::]:443 ssl http2;", ""],
    ["/etc/edge/tls.crt", place.cert],
    ["/etc/edge/tls.key", place.key],
    ["server inventory:8080 max_fails=1 fail_timeout=2s;", servers(upstreams)],
    ["server inventory-orders:8080 max_fails=1 fail_timeout=2s;", servers(writeUpstreams)],
    [
      "server inventory:8080 max_fails=1 fail_timeout=2s backup;",
      servers(upstreams, writeUpstreams.length > 0 ? " backup" : ""),
    ],
    ...(idleMs === undefined
      ? []
      : ([
          ["proxy_read_timeout 60s;", `proxy_read_timeout ${idleMs}ms;`],
          ["grpc_read_timeout 60s;", `grpc_read_timeout ${idleMs}ms;`],
          ["proxy_send_timeout 60s;", `proxy_send_timeout ${idleMs}ms;`],
          ["grpc_send_timeout 60s;", `grpc_send_timeout ${idleMs}ms;`],
          ["keepalive_timeout 75s;", `keepalive_timeout ${idleMs}ms;`],
        ] as const)),
    ...(writers === undefined ? [] : ([["# 192.0.2.0/24 1;", `${writers} 1;`]] as const)),
  ]);
  return { args: ["-c", config, "-p", place.folder, "-g", "daemon off;"] };
});

const envoy = edgeKind("Envoy", need("envoy"), async (place, { upstreams, idleMs }) => {
  const config = await render("envoy.yaml", place.folder, [
    [
      'address: { socket_address: { address: "::", ipv4_compat: true, port_value: 443 } }',
      `address: { socket_address: { address: 127.0.0.1, port_value: ${place.port} } }`,
    ],
    ["/etc/edge/tls.crt", place.cert],
    ["/etc/edge/tls.key", place.key],
    [
      "- endpoint: { address: { socket_address: { address: inventory, port_value: 8080 } } }",
      upstreams
        .map(
          (port) =>
            `- endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: ${port} } } }`,
        )
        .join(`\n${" ".repeat(14)}`),
    ],
    ["address: inventory-orders, port_value: 8080", `address: 127.0.0.1, port_value: ${upstreams[0]}`],
    ...(idleMs === undefined
      ? []
      : ([
          ["stream_idle_timeout: 60s", `stream_idle_timeout: ${idleMs / 1_000}s`],
          ["idle_timeout: 120s", `idle_timeout: ${idleMs / 1_000}s`],
        ] as const)),
  ]);
  // One worker, and no shared memory, for which concurrent tests would compete.
  return { args: ["-c", config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"] };
});

const haproxy = edgeKind("HAProxy", need("haproxy"), async (place, options) => {
  const { upstreams, writeUpstreams = [], idleMs, writers } = options;
  const servers = (name: string, ports: readonly number[], parameters = ""): string =>
    ports.map((port, n) => `server ${name}-${n} 127.0.0.1:${port}${parameters}`).join("\n    ");
  const config = await render("haproxy.cfg", place.folder, [
    ["bind :80\n", `bind 127.0.0.1:${place.plainPort}\n`],
    ["    bind :::80 v6only\n", ""],
    ["bind :443 ssl crt /etc/edge/tls.crt", `bind 127.0.0.1:${place.port} ssl crt ${place.cert}`],
    ["    bind :::443 v6only ssl crt /etc/edge/tls.crt alpn h2,http/1.1\n", ""],
    ["maxconn 20000", "maxconn 2000"],
    ["server inventory inventory:8080", servers("inventory", upstreams)],
    ["server orders inventory-orders:8080", servers("orders", writeUpstreams)],
    [
      "server shoppers inventory:8080 backup",
      servers("shoppers", upstreams, writeUpstreams.length > 0 ? " backup" : ""),
    ],
    ...(idleMs === undefined
      ? []
      : ([
          ["timeout client 60s", `timeout client ${idleMs}ms`],
          ["timeout server 60s", `timeout server ${idleMs}ms`],
          ["timeout http-keep-alive 75s", `timeout http-keep-alive ${idleMs}ms`],
        ] as const)),
    ...(writers === undefined ? [] : ([["255.255.255.255/32", writers]] as const)),
  ]);
  return { args: ["-db", "-f", config] };
});

export const EDGES = { caddy, nginx, envoy, haproxy } as const;

/** Writes a copy of a delivered file with replacements. Throws if the file does not contain each replaced text. */
async function render(
  name: string,
  folder: string,
  places: readonly (readonly [string, string])[],
): Promise<string> {
  let text = await readFile(join(DELIVERED, name), "utf8");
  for (const [from, to] of places) {
    if (!text.includes(from)) {
      throw new Error(`${name} has no ${JSON.stringify(from)}`);
    }
    text = text.replaceAll(from, to);
  }
  const path = join(folder, name);
  await writeFile(path, text);
  return path;
}

/** The stop signals of the official images (`STOPSIGNAL`), where they are not SIGTERM. */
const STOP_SIGNALS: Partial<Record<EdgeKind["name"], NodeJS.Signals>> = {
  nginx: "SIGQUIT",
  HAProxy: "SIGUSR1",
};
/** As long as Docker waits before it sends SIGKILL. */
const STOP_MS_MAX = 10_000;

function edgeKind(
  name: EdgeKind["name"],
  program: Need,
  commandOf: (place: Place, options: EdgeOptions) => Promise<Command>,
): EdgeKind {
  return {
    name,
    program,
    start: async (options) => {
      const folder = await mkdtemp(join(tmpdir(), "inventory-edge-"));
      // nginx's workers run as another user.
      await chmod(folder, 0o755);
      const { cert, key, spki } = await makeCertificate(folder);
      const place = { folder, cert, key, port: await freePort(), plainPort: await freePort() };
      const { args, env = {} } = await commandOf(place, options);
      const logFile = join(folder, "edge.log");
      const server = await startServerProcess({
        command: program.path,
        args,
        logFile,
        removeOnCrash: folder,
        env: { PATH: process.env["PATH"], ...env },
      });
      const stop = async (): Promise<void> => {
        await server.end("SIGTERM", 2_000);
        await rm(folder, { recursive: true, force: true });
      };
      try {
        await untilItAnswers(server, place.port);
      } catch (error) {
        await stop();
        throw error;
      }
      return {
        url: `https://localhost:${place.port}`,
        port: place.port,
        certificate: await readFile(cert),
        spki,
        log: server.log,
        plainPort: place.plainPort,
        stopGracefully: async () => {
          await server.end(STOP_SIGNALS[name] ?? "SIGTERM", STOP_MS_MAX);
          return /ended with (exit code \d+|SIG\w+)/.exec(server.describe())?.[1] ?? server.describe();
        },
        [Symbol.asyncDispose]: stop,
      };
    },
  };
}

/** Waits until the edge serves a page, so it has found its servers ready. */
async function untilItAnswers(server: ServerProcess, port: number): Promise<void> {
  await until(
    async () => {
      if (!server.running()) {
        throw new Hopeless(server.describe());
      }
      return (await ask(port)).startsWith("HTTP/1.1 200");
    },
    `the edge answers on port ${port}`,
    START_MS_MAX,
  );
}

function ask(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = "";
    const raw = dial({ host: "127.0.0.1", port });
    raw.on("error", reject);
    const socket = dialTls({
      socket: raw,
      servername: "localhost",
      rejectUnauthorized: false,
      ALPNProtocols: ["http/1.1"],
    });
    socket.on("error", reject);
    socket.setEncoding("utf8");
    socket.setTimeout(2_000, () => socket.destroy());
    socket.on("data", (text: string) => {
      answer += text;
    });
    socket.on("close", () => resolve(answer));
    socket.write("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  });
}

const run = promisify(execFile);

/** A self-signed certificate for localhost. */
async function makeCertificate(folder: string): Promise<{ cert: string; key: string; spki: string }> {
  const [cert, key] = [join(folder, "tls.crt"), join(folder, "tls.key")];
  const openssl = need("openssl").path;
  const request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost";
  const names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
  await run(openssl, [...request.split(" "), ...names, "-keyout", key, "-out", cert]);
  const { publicKey } = new X509Certificate(await readFile(cert));
  const spki = createHash("sha256")
    .update(publicKey.export({ type: "spki", format: "der" }))
    .digest("base64");
  return { cert, key, spki };
}
