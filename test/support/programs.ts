import { spawnSync } from "node:child_process";
import {
  accessSync,
  constants,
  existsSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statSync,
} from "node:fs";
import { homedir } from "node:os";
import { delimiter, dirname, isAbsolute, join } from "node:path";

/** A program, and how to find and install it. */
export interface Program {
  /** Names of the executable, the preferred one first. */
  readonly names: readonly string[];
  /** The Debian package that contains it; `undefined` if there is none. */
  readonly debianPackage: string | undefined;
  /** Whether tests fail without it. Tests of an optional one are skipped by name. */
  readonly required: boolean;
  /** Only benchmarks run it, so that `npm test` does not install it. */
  readonly benchOnly?: boolean;
  /** The argument that prints the version. */
  readonly version: string;
}

/** The programs that tests and benchmarks run besides Node. */
export const programs = {
  "redis-server": {
    names: ["redis-server"],
    debianPackage: "redis-server",
    required: true,
    version: "--version",
  },
  chromium: {
    // The headless shell is the same engine without a desktop UI, and opens a page with a third of the CPU time.
    names: [
      "chromium-headless-shell",
      "chromium",
      "chromium-browser",
      "google-chrome",
      "google-chrome-stable",
    ],
    debianPackage: "chromium-headless-shell",
    required: true,
    version: "--version",
  },
  curl: { names: ["curl"], debianPackage: "curl", required: true, version: "--version" },
  openssl: { names: ["openssl"], debianPackage: "openssl", required: true, version: "version" },
  grpcurl: { names: ["grpcurl"], debianPackage: undefined, required: false, version: "-version" },
  connectconformance: {
    names: ["connectconformance"],
    debianPackage: undefined,
    required: false,
    version: "--version",
  },
  kcat: { names: ["kcat"], debianPackage: "kcat", required: false, version: "-V" },
  caddy: { names: ["caddy"], debianPackage: "caddy", required: false, version: "version" },
  nginx: { names: ["nginx"], debianPackage: "nginx", required: false, version: "-v" },
  envoy: { names: ["envoy"], debianPackage: undefined, required: false, version: "--version" },
  haproxy: { names: ["haproxy"], debianPackage: "haproxy", required: false, version: "-v" },
  prometheus: { names: ["prometheus"], debianPackage: "prometheus", required: false, version: "--version" },
  promtool: { names: ["promtool"], debianPackage: "prometheus", required: false, version: "--version" },
  "prometheus-node-exporter": {
    names: ["prometheus-node-exporter"],
    debianPackage: "prometheus-node-exporter",
    required: false,
    version: "--version",
  },
  "prometheus-redis-exporter": {
    names: ["prometheus-redis-exporter"],
    debianPackage: "prometheus-redis-exporter",
    required: false,
    version: "--version",
  },
  "redis-8.2": {
    names: ["redis-8.2"],
    debianPackage: undefined,
    required: false,
    version: "--version",
  },
  "valkey-9.1": {
    names: ["valkey-9.1"],
    debianPackage: undefined,
    required: false,
    version: "--version",
  },
  h2load: {
    names: ["h2load"],
    debianPackage: "nghttp2-client",
    required: false,
    benchOnly: true,
    version: "--version",
  },
  wrk: { names: ["wrk"], debianPackage: "wrk", required: false, benchOnly: true, version: "-v" },
  "redis-benchmark": {
    names: ["redis-benchmark"],
    debianPackage: "redis-tools",
    required: false,
    benchOnly: true,
    version: "--version",
  },
  postgres: {
    names: ["postgres"],
    debianPackage: "postgresql",
    required: false,
    benchOnly: true,
    version: "--version",
  },
} as const satisfies Readonly<Record<string, Program>>;

export type ProgramName = keyof typeof programs;

/** A required program. `missing` is the reason to skip a test, or false: `describe("…", { skip: redis.missing }, …)`. */
export interface Need {
  /** The absolute path, or the bare name if it is missing. */
  readonly path: string;
  readonly missing: string | false;
}

/** An external broker, or what is needed to run one. */
export type Kafka = ExternalKafka | JavaKafka;

export interface ExternalKafka {
  readonly kind: "external";
  readonly brokers: string[];
}

export interface JavaKafka {
  readonly kind: "java";
  readonly java: string;
  readonly classpath: string;
}

export const kafkaVersion = "4.4.0";
const POSTGRES_VERSIONS = "/usr/lib/postgresql";
const redisMajorMin = 7;
const javaMajorMin = 17;

const checkout = join(import.meta.dirname, "..", "..");

/** The folder of downloads, outside of git: INVENTORY_CACHE, or `.cache` in the checkout. */
export function cacheDir(): string {
  const { INVENTORY_CACHE } = process.env;
  return INVENTORY_CACHE || join(checkout, ".cache");
}

/** The folder of Kafka's jars. It exists only if it is complete. */
export function kafkaLibDir(): string {
  return join(cacheDir(), "kafka", kafkaVersion, "lib");
}

/** The first executable of this name in PATH, in the system folders that PATH may lack, the cache, and Go's bin folder. */
export function findProgram(name: string): string | undefined {
  const { PATH = "", GOPATH = "" } = process.env;
  const goPath = GOPATH.split(delimiter)[0] || join(homedir(), "go");
  const folders = [
    ...PATH.split(delimiter).filter(isAbsolute),
    "/usr/local/bin",
    "/usr/bin",
    "/usr/local/sbin",
    "/usr/sbin",
    join(cacheDir(), "bin"),
    join(goPath, "bin"),
  ];
  return folders.map((folder) => join(folder, name)).find(isExecutable);
}

/** The servers on which tests of the store run, besides the system's own. Each has a folder in the cache. */
export const REDIS_SERVERS = ["redis-8.2", "valkey-9.1"] as const;
type CachedRedisServer = (typeof REDIS_SERVERS)[number];

/** The server that REDIS_SERVER names (`redis-8.2`, `valkey-9.1`), else a redis-server of version 7 or later in PATH. */
export function findRedisServer(): string | undefined {
  const { REDIS_SERVER = "" } = process.env;
  if (REDIS_SERVER !== "" && REDIS_SERVER !== "system") {
    return findCachedRedisServer(REDIS_SERVER as CachedRedisServer);
  }
  const path = findProgram("redis-server");
  return path !== undefined && redisMajor(path) >= redisMajorMin ? path : undefined;
}

export function findCachedRedisServer(name: CachedRedisServer): string | undefined {
  const path = join(cacheDir(), name, "redis-server");
  return isExecutable(path) ? path : undefined;
}

/**
 * The server of the newest PostgreSQL. Debian keeps each major version in a folder of its own; the other programs of that
 * version (initdb, psql, pgbench) are beside it.
 */
export function findPostgres(): string | undefined {
  const versions = existsSync(POSTGRES_VERSIONS) ? readdirSync(POSTGRES_VERSIONS) : [];
  return (
    versions
      .sort((a, b) => Number(b) - Number(a))
      .map((version) => join(POSTGRES_VERSIONS, version, "bin", "postgres"))
      .find(isExecutable) ?? findProgram("postgres")
  );
}

/** CHROMIUM_PATH, or a Chromium or Chrome of the system, preferably the headless shell. */
export function findChromium(): string | undefined {
  const { CHROMIUM_PATH } = process.env;
  if (CHROMIUM_PATH) return isExecutable(CHROMIUM_PATH) ? CHROMIUM_PATH : undefined;
  for (const name of programs.chromium.names) {
    const path = findProgram(name);
    if (path !== undefined) return path;
  }
  return ["/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"].find(isExecutable);
}

/** A Java of version 17 or later: from JAVA_HOME, or the one in PATH. */
export function findJava(): string | undefined {
  const { JAVA_HOME } = process.env;
  const candidates = [JAVA_HOME ? join(JAVA_HOME, "bin", "java") : undefined, findProgram("java")];
  return candidates.find(
    (path) => path !== undefined && isExecutable(path) && javaMajor(path) >= javaMajorMin,
  );
}

/** The Kafka that KAFKA_BROKERS names, else one that can be run by Java from the cached jars. */
export function findKafka(): Kafka | undefined {
  const { KAFKA_BROKERS = "" } = process.env;
  const brokers = KAFKA_BROKERS.split(",").map((broker) => broker.trim());
  const named = brokers.filter((broker) => broker !== "");
  return named.length > 0 ? { kind: "external", brokers: named } : findJavaKafka();
}

/** A Kafka that a test starts itself and may kill, whatever KAFKA_BROKERS says. */
export function findJavaKafka(): JavaKafka | undefined {
  const java = findJava();
  if (java === undefined || !hasKafkaJars()) return undefined;
  return { kind: "java", java, classpath: join(kafkaLibDir(), "*") };
}

/**
 * An archive of Kafka's loaded classes, which halves the time of a start. The JVM ignores an archive that another version of
 * Java wrote.
 */
export function kafkaClassArchive(): string | undefined {
  const archive = kafkaClassArchivePath();
  return existsSync(archive) ? archive : undefined;
}

export function kafkaClassArchivePath(): string {
  return join(cacheDir(), "kafka", kafkaVersion, "classes.jsa");
}

/** A folder formatted by Kafka's storage tool, to copy. It contains no port and no path. */
export function kafkaStorageTemplate(): string {
  return join(cacheDir(), "kafka", kafkaVersion, "formatted");
}

/** Whether the cache has the complete set of Kafka's jars. */
export function hasKafkaJars(): boolean {
  const lib = kafkaLibDir();
  return existsSync(lib) && readdirSync(lib).includes(`kafka_2.13-${kafkaVersion}.jar`);
}

/** Finds a program, `kafka` (any broker) or `own-kafka` (one that the test may kill), or the reason why it is missing. */
export function need(name: ProgramName | "kafka" | "own-kafka"): Need {
  const path = pathOf(name);
  return path === undefined ? { path: name, missing: reasonFor(name) } : { path, missing: false };
}

function pathOf(name: ProgramName | "kafka" | "own-kafka"): string | undefined {
  switch (name) {
    case "redis-server":
      return findRedisServer();
    case "redis-8.2":
    case "valkey-9.1":
      return findCachedRedisServer(name);
    case "chromium":
      return findChromium();
    case "postgres":
      return findPostgres();
    case "kafka": {
      const kafka = findKafka();
      return kafka?.kind === "external" ? kafka.brokers.join(",") : kafka?.classpath;
    }
    case "own-kafka":
      return findJavaKafka()?.classpath;
    default:
      return findProgram(name);
  }
}

function reasonFor(name: ProgramName | "kafka" | "own-kafka"): string {
  if (name === "kafka" || name === "own-kafka") return `no Kafka: ${reasonForKafka()}`;
  const { REDIS_SERVER = "" } = process.env;
  if (name === "redis-server" && REDIS_SERVER !== "" && REDIS_SERVER !== "system") {
    return `REDIS_SERVER=${REDIS_SERVER} is not in ${cacheDir()} (tools/provision.ts fetches it)`;
  }
  const old = name === "redis-server" ? findProgram(name) : undefined;
  if (old !== undefined) return `${old} is older than version ${redisMajorMin}`;
  const { debianPackage } = programs[name];
  return debianPackage === undefined
    ? `${name} is not installed`
    : `${name} is not installed (Debian package ${debianPackage})`;
}

function reasonForKafka(): string {
  if (findJava() === undefined) return `no Java of version ${javaMajorMin} or later is installed`;
  return `${kafkaLibDir()} is missing (tools/provision.ts fetches it)`;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

function redisMajor(path: string): number {
  const { stdout } = spawnSync(path, ["--version"], { encoding: "utf8" });
  return Number(/\bv=(\d+)\./.exec(stdout ?? "")?.[1] ?? 0);
}

/** Reads the version from the release file beside the program, if there is one: running the program takes 100 ms. */
function javaMajor(path: string): number {
  const release = join(dirname(dirname(realpathSync(path))), "release");
  const text = existsSync(release)
    ? readFileSync(release, "utf8")
    : (spawnSync(path, ["-version"], { encoding: "utf8" }).stderr ?? "");
  return Number(/(?:JAVA_VERSION=|version )"(\d+)/.exec(text)?.[1] ?? 0);
}
