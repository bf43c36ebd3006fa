import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { cacheDir, findProgram } from "../support/programs.ts";

const ROOT = join(import.meta.dirname, "../..");
const BIN = join(ROOT, "node_modules/.bin");
/** Go fetches and compiles grpc-go on its first run. */
const RUN_MS_MAX = 4 * 60_000;

/** The reason to skip what takes long, unless EXAMPLES is set. */
export const notChosen = process.env["EXAMPLES"] ? (false as const) : "run by `npm run test:examples`";

/** Folder of compiled examples and of their packages. */
export const buildDir = join(cacheDir(), "examples");

/** Go is often not in PATH. */
export const go = findProgram("go") ?? ["/usr/local/go/bin/go"].find((path) => existsSync(path)) ?? "go";
export const goMissing = go === "go" ? "go is not installed" : (false as const);

export const pythonMissing =
  findProgram("python3") === undefined ? "python3 is not installed" : (false as const);

/** Installs the example's packages once, into the cache. Returns the interpreter that has them. */
export async function pythonOf(example: string): Promise<string> {
  const requirements = await readFile(join(exampleDir(example), "requirements.txt"));
  const digest = createHash("sha256").update(requirements).digest("hex").slice(0, 12);
  const python = join(buildDir, `${example}-${digest}`, "bin", "python");
  if (await run(example, [python, "-c", "import confluent_kafka"]).then(({ exitCode }) => exitCode !== 0)) {
    await runOk(example, ["python3", "-m", "venv", "--clear", dirname(dirname(python))]);
    await runOk(example, [python, "-m", "pip", "install", "--quiet", "-r", "requirements.txt"]);
  }
  return python;
}

export interface Output {
  readonly stdout: string;
  readonly stderr: string;
  /** -1 if a signal ended it. */
  readonly exitCode: number;
}

/** The folder of an example. */
export function exampleDir(name: string): string {
  return join(ROOT, "examples", name);
}

/**
 * The environment of an example's program: the test's, because Go and pip take proxies and caches from it. PATH begins with
 * the tools of this checkout.
 */
export function exampleEnvironment(environment: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const { NODE_TEST_CONTEXT, INVENTORY_TOKEN, ...inherited } = process.env;
  return { ...inherited, ...environment, PATH: [BIN, process.env["PATH"], dirname(go)].join(delimiter) };
}

/** Runs a program in the folder of an example. Resolves also if it fails. */
export function run(
  example: string,
  command: readonly string[],
  environment: NodeJS.ProcessEnv = {},
): Promise<Output> {
  const [file = "", ...args] = command;
  const options = { cwd: exampleDir(example), env: exampleEnvironment(environment), timeout: RUN_MS_MAX };
  return new Promise((resolve) => {
    execFile(file, args, options, (error, stdout, stderr) => {
      const code = typeof error?.code === "number" ? error.code : -1;
      resolve({
        stdout,
        stderr: `${stderr}${code === -1 ? (error?.message ?? "") : ""}`,
        exitCode: error === null ? 0 : code,
      });
    });
  });
}

/** Runs a program and throws unless it exits with 0. */
export async function runOk(
  example: string,
  command: readonly string[],
  environment: NodeJS.ProcessEnv = {},
): Promise<string> {
  const { stdout, stderr, exitCode } = await run(example, command, environment);
  if (exitCode !== 0) throw new Error(`${command.join(" ")} exited with ${exitCode}:\n${stdout}${stderr}`);
  return stdout;
}
