import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parse } from "yaml";
import { cacheDir, findProgram } from "../../test/support/programs.ts";
import { type CommandOptions, mustRun, type Outcome, run } from "./command.ts";
import { type Podman, preparePodman } from "./podman.ts";
import type { RedisVariant } from "./redis-variant.ts";
import { buildStandIn } from "./stand-ins.ts";

/** How the Compose projects of all runs begin. Those of other deployments do not, and their volumes are not touched. */
const PROJECTS = "inventory-walkthrough-";
/**
 * The Compose project of this run. A killed run leaves addresses and a DNS server allocated to the names of its networks,
 * which podman keeps outside of its storage, so each run has other names.
 */
export const PROJECT = `${PROJECTS}${randomBytes(3).toString("hex")}`;
/** `off`: pull no image, use stand-ins. */
const { WALKTHROUGH_PULL = "on" } = process.env;
const PULL_MS_MAX = 5 * 60_000;
const CHECK_MS_MAX = 15_000;
/** In the order in which Docker stops them. */
const SERVICES = ["edge", "inventory-orders", "inventory-1", "inventory-2", "kafka"] as const;

const root = join(import.meta.dirname, "..", "..");

/** Docker, or podman with storage of its own. */
export class Engine {
  /** Which Compose files are used. */
  readonly redis: RedisVariant;
  readonly name: string;
  readonly #command: string;
  readonly #compose: readonly string[];
  readonly #env: NodeJS.ProcessEnv;
  readonly podman: Podman | undefined;
  /** Aborts what runs. */
  readonly #signal: AbortSignal;

  constructor(
    name: string,
    command: string,
    compose: readonly string[],
    redis: RedisVariant,
    signal: AbortSignal,
    podman?: Podman,
  ) {
    this.redis = redis;
    this.name = name;
    this.#command = command;
    this.#compose = compose;
    this.#signal = signal;
    this.#env = podman?.env ?? process.env;
    this.podman = podman;
  }

  /** Runs the engine's command line to its end, whatever the exit code. */
  try(args: readonly string[], options: CommandOptions = {}): Promise<Outcome> {
    return run(this.#command, args, { env: this.#env, signal: this.#signal, ...options });
  }

  /** As `try`; rejects if it fails. */
  do(args: readonly string[], options: CommandOptions = {}): Promise<string> {
    return mustRun(this.#command, args, { env: this.#env, signal: this.#signal, ...options });
  }

  /** Starts the engine's command line, without waiting for its end. */
  start(args: readonly string[]): ChildProcessWithoutNullStreams {
    return spawn(this.#command, args, { env: this.#env, detached: true });
  }

  /** Runs a Compose command on docker-compose.yml with these variables. */
  compose(
    args: readonly string[],
    variables: NodeJS.ProcessEnv = {},
    options: CommandOptions = {},
  ): Promise<string> {
    const [file = "", ...before] = this.#compose;
    const files = this.redis.files.flatMap((name) => ["-f", name]);
    return mustRun(file, [...before, ...files, "-p", PROJECT, ...args], {
      cwd: root,
      env: { ...this.#env, ...variables },
      signal: this.#signal,
      ...options,
    });
  }

  /** The name of the container of a service. */
  async container(service: string): Promise<string> {
    const filters = [`project=${PROJECT}`, `service=${service}`];
    const labels = filters.flatMap((filter) => ["--filter", `label=com.docker.compose.${filter}`]);
    const [name] = (await this.do(["ps", "--all", ...labels, "--format", "{{.Names}}"])).split("\n");
    if (name === undefined || name === "") throw new Error(`There is no container of ${service}`);
    return name;
  }

  /** The names of all containers of this project. */
  async containers(): Promise<string[]> {
    const label = `label=com.docker.compose.project=${PROJECT}`;
    const names = await this.do(["ps", "--all", "--filter", label, "--format", "{{.Names}}"]);
    return names.split("\n").filter((name) => name !== "");
  }

  async exitCode(service: string): Promise<number> {
    const format = ["--format", "{{.State.ExitCode}}"];
    return Number(await this.do(["inspect", await this.container(service), ...format]));
  }

  /** Runs the service's health check now. */
  async isHealthy(service: string): Promise<boolean> {
    const container = await this.container(service);
    if (this.podman !== undefined) {
      return (await this.try(["healthcheck", "run", container], { timeoutMs: CHECK_MS_MAX })).code === 0;
    }
    return (await this.do(["inspect", container, "--format", "{{.State.Health.Status}}"])) === "healthy";
  }

  /** Recreates the container of a service with the current image and variables. */
  async replace(service: string, variables: NodeJS.ProcessEnv): Promise<void> {
    if (this.podman === undefined) {
      const options = ["-d", "--no-deps", "--force-recreate", "--wait"];
      await this.compose(["up", ...options, service], variables);
      return;
    }
    // podman-compose replaces what depends on it as well.
    await this.do(["rm", "--force", await this.container(service)]);
    await this.compose(["up", "-d", "--no-build", "--no-deps", service], variables);
  }

  /** Removes the containers, and keeps the volumes. */
  async down(variables: NodeJS.ProcessEnv): Promise<void> {
    if (this.podman === undefined) {
      await this.compose(["down"], variables);
      return;
    }
    // In Docker's order, dependents first; podman-compose stops all at once.
    for (const service of [...SERVICES, ...this.redis.services]) {
      const { code } = await this.try(["stop", "--time", "30", await this.container(service)]);
      if (code !== 0) throw new Error(`${service} cannot be stopped`);
    }
    await this.compose(["down"], variables);
  }

  /** Removes everything of this project, also after an abort. */
  async removeAll(): Promise<void> {
    const always: CommandOptions = { signal: undefined };
    const names = (await this.try(["ps", "--all", "--format", "{{.Names}}"], always)).stdout.split("\n");
    const own = names.filter((name) => name.startsWith(PROJECTS));
    if (own.length > 0) await this.try(["rm", "--force", "--volumes", ...own], always);
    for (const kind of ["volume", "network"] as const) {
      const list = await this.try([kind, "ls", "--format", "{{.Name}}"], always);
      const things = list.stdout.split("\n").filter((name) => name.startsWith(PROJECTS));
      if (things.length > 0) await this.try([kind, "rm", ...things], always);
    }
  }

  /** Runs a command in the container of a service; rejects if it fails. */
  async exec(service: string, command: readonly string[], options: CommandOptions = {}): Promise<string> {
    return this.do(["exec", "--interactive", await this.container(service), ...command], options);
  }
}

/**
 * Chooses Docker if it responds, has Compose and can get the images, else podman. `say` receives a line for each image that has
 * to be replaced by a stand-in.
 */
export async function findEngine(
  redis: RedisVariant,
  signal: AbortSignal,
  say: (line: string) => void,
): Promise<Engine> {
  const images = await imagesOf();
  const docker = await findDocker(redis, signal);
  if (typeof docker !== "string") {
    const failed = WALKTHROUGH_PULL === "off" ? images : await pull(docker, images);
    if (failed.length === 0) return docker;
    say(`Docker is not used: ${failed.join(", ")} cannot be pulled`);
  } else {
    say(`Docker is not used: ${docker}`);
  }
  const folder = join(cacheDir(), "compose-walkthrough");
  const podman = await preparePodman(folder);
  if (typeof podman === "string") throw new Error(`Neither Docker nor podman can be used: ${podman}`);
  const version = (await mustRun(podman.env["REAL_PODMAN"] ?? "", ["--version"])).split(" ").at(-1);
  const engine = new Engine(`podman ${version}`, podman.podman, podman.compose, redis, signal, podman);
  for (const image of WALKTHROUGH_PULL === "off" ? images : await pull(engine, images)) {
    say(`${image.padEnd(30)} stand-in: ${await buildStandIn(podman, image, folder)}`);
  }
  return engine;
}

async function findDocker(redis: RedisVariant, signal: AbortSignal): Promise<Engine | string> {
  const docker = findProgram("docker");
  if (docker === undefined) return "it is not installed";
  const { code, stdout } = await run(docker, ["info", "--format", "{{.ServerVersion}}"]);
  if (code !== 0) return "no engine responds";
  if ((await run(docker, ["compose", "version"])).code !== 0) return "it has no Compose";
  return new Engine(`Docker ${stdout.trim()}`, docker, [docker, "compose"], redis, signal);
}

/** Returns the images that could not be pulled. */
async function pull(engine: Engine, images: readonly string[]): Promise<string[]> {
  const failed: string[] = [];
  for (const image of images) {
    const { code } = await engine.try(["pull", "-q", image], { timeoutMs: PULL_MS_MAX });
    if (code !== 0) failed.push(image);
  }
  return failed;
}

/** What docker-compose.yml and the Dockerfiles ask a registry for. */
async function imagesOf(): Promise<string[]> {
  const text = await readFile(join(root, "docker-compose.yml"), "utf8");
  const { services }: { services: Record<string, { image: string; build?: unknown }> } = parse(text, {
    merge: true,
  });
  const images = Object.values(services)
    .filter(({ build }) => build === undefined)
    .map(({ image }) => image);
  for (const file of ["Dockerfile", "deploy/operator/Dockerfile"]) {
    const dockerfile = await readFile(join(root, file), "utf8");
    const [, version = ""] = /^ARG NODE_VERSION=(\S+)/m.exec(dockerfile) ?? [];
    const bases = [...dockerfile.matchAll(/^FROM (\S+)/gm)].map(([, image = ""]) =>
      image.replace(/\$\{NODE_VERSION\}/, version),
    );
    images.push(...bases);
  }
  return [...new Set(images)];
}
