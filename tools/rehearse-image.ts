/**
 * Does by hand what the Dockerfile says, for machines without a container engine: each stage in a folder of its own, from
 * the files that .dockerignore lets through, with npm's real installs; then starts the last stage as its CMD does, as its USER, on a
 * file system that cannot be written, and asks /readyz, the page, an RPC and the HEALTHCHECK; SIGTERM has to end it with 0.
 *
 * What stands for the base image: the devDependency `node`, and this machine's libraries.
 */
import { type ChildProcess, execFile, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, isAbsolute, join } from "node:path";
import { promisify } from "node:util";
import { freePort } from "../test/support/free-port.ts";
import { Hopeless, until } from "../test/support/until.ts";
import { buildContext, type Instruction, readDockerfile, type Stage } from "./dockerfile.ts";

const BUILD_MS_MAX = 5 * 60_000;
const START_MS_MAX = 20_000;
const MIB = 1024 * 1024;

const root = join(import.meta.dirname, "..");
const run = promisify(execFile);
const isRoot = process.getuid?.() === 0;
/** The pinned Node of package.json goes before the machine's, and the machine's npm runs by it. */
const PATH = `${join(root, "node_modules/.bin")}:${process.env["PATH"]}`;

const work = await mkdtemp(join(tmpdir(), "image-"));
try {
  await chmod(work, 0o755);
  const stages = readDockerfile(await readFile(join(root, "Dockerfile"), "utf8"));
  const context = buildContext(root);
  say(`context      ${context.length} files`);
  const built = new Map<string, string>();
  for (const [index, stage] of stages.entries()) {
    const name = stage.name ?? (index === stages.length - 1 ? "image" : String(index));
    const startMs = performance.now();
    built.set(name, await buildStage(stage, join(work, name), context, built));
    say(`${name.padEnd(12)} built in ${((performance.now() - startMs) / 1_000).toFixed(1)} s`);
  }
  const image = join(work, "image");
  const sizes = await Promise.all(
    ["app", "app/node_modules", "app/dist"].map(
      async (part) => [part, await bytesOf(join(image, part))] as const,
    ),
  );
  say(`size         ${sizes.map(([part, bytes]) => `${part} ${(bytes / MIB).toFixed(1)} MiB`).join(", ")}`);
  await tryImage(stages.at(-1)?.instructions ?? [], image);
} finally {
  await rm(work, { recursive: true, force: true });
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** Does what a stage says to a folder, which stands for the file system's root. */
async function buildStage(
  stage: Stage,
  folder: string,
  context: readonly string[],
  built: ReadonlyMap<string, string>,
): Promise<string> {
  // A builder has npm's settings too: the registry, its certificates, its cache.
  const env: NodeJS.ProcessEnv = { ...process.env, PATH };
  let directory = "/";
  const within = (path: string): string => join(folder, isAbsolute(path) ? path : join(directory, path));
  for (const { name, flags, args, text } of stage.instructions) {
    if (name === "WORKDIR") {
      directory = args[0] ?? "/";
      await mkdir(within("."), { recursive: true });
    } else if (name === "ENV") {
      Object.assign(env, settingsOf(args));
    } else if (name === "RUN") {
      await run("sh", ["-c", text], { cwd: within("."), env, timeout: BUILD_MS_MAX, maxBuffer: 64 * MIB });
    } else if (name === "COPY") {
      const sources = args.slice(0, -1);
      const target = args.at(-1) ?? "";
      const intoFolder = sources.length > 1 || target.endsWith("/");
      for (const source of sources) {
        const to = within(intoFolder ? join(target, source.split("/").at(-1) ?? "") : target);
        const from = flags["from"];
        if (from !== undefined) {
          const other = built.get(from);
          if (other === undefined) throw new Error(`There is no stage ${from} before this one`);
          await cp(join(other, source), to, { recursive: true, verbatimSymlinks: true });
        } else await copyFromContext(context, source, to);
      }
    }
  }
  return folder;
}

async function copyFromContext(context: readonly string[], source: string, to: string): Promise<void> {
  const files = context.filter((file) => file === source || file.startsWith(`${source}/`));
  if (files.length === 0) throw new Error(`The build context has no ${source}; see .dockerignore`);
  for (const file of files) {
    const target = join(to, file.slice(source.length));
    await mkdir(dirname(target), { recursive: true });
    await cp(join(root, file), target);
  }
}

function settingsOf(args: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    args.map((each) => [each.slice(0, each.indexOf("=")), each.slice(each.indexOf("=") + 1)]),
  );
}

async function bytesOf(path: string): Promise<number> {
  const entry = await stat(path);
  if (!entry.isDirectory()) return entry.size;
  const names = await readdir(path, { recursive: true });
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(path, name))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}

function find(instructions: readonly Instruction[], name: string): Instruction {
  const found = instructions.findLast((instruction) => instruction.name === name);
  if (found === undefined) throw new Error(`The last stage has no ${name}`);
  return found;
}

/** Starts what was built and asks it; throws where it does not answer as it must. */
async function tryImage(instructions: readonly Instruction[], image: string): Promise<void> {
  const port = await freePort();
  const env = {
    PATH,
    ...settingsOf(instructions.filter(({ name }) => name === "ENV").flatMap(({ args }) => args)),
    // Loopback in place of 0.0.0.0, so that nobody outside reaches what needs no token here.
    HOST: "127.0.0.1",
    PORT: String(port),
    DEMO: "on",
  };
  const cwd = join(image, find(instructions, "WORKDIR").args[0] ?? "/");
  const user = find(instructions, "USER").args[0] ?? "";
  const command = inContainer(find(instructions, "CMD").args, user);
  const child = spawn(command.file, command.args, { cwd, env, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  }
  const exited = once(child, "exit");
  const url = `http://127.0.0.1:${port}`;
  try {
    await until(
      async () => {
        if (child.exitCode !== null) throw new Hopeless("it has ended");
        return (await fetch(`${url}/readyz`)).status === 200;
      },
      "the image is ready",
      START_MS_MAX,
    );
    say(`started      by ${command.told}; /readyz 200`);
    await expectWrites(command.isReadOnly, cwd, user);
    const page = await fetch(`${url}/`);
    const script = /<script[^>]+src="([^"]+)"/.exec(await page.text())?.[1];
    if (page.status !== 200 || script === undefined)
      throw new Error(`The page is ${page.status} without a script`);
    const asset = await fetch(new URL(script, url));
    if (asset.status !== 200) throw new Error(`${script} is ${asset.status}`);
    say(`page         200, and its script ${script}`);
    const rpc = await fetch(`${url}/inventory.v1.StockService/GetStock`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ productId: "demo-01" }),
    });
    if (rpc.status !== 200) throw new Error(`GetStock is ${rpc.status}: ${await rpc.text()}`);
    say("GetStock     200");
    const [, file = "", ...args] = find(instructions, "HEALTHCHECK").args;
    await run(file, args, { cwd, env });
    const dead = await run(file, args, { cwd, env: { ...env, PORT: "1" } }).catch(({ code }) => code);
    if (dead !== 1) throw new Error(`The health check of a port where nobody listens ended with ${dead}`);
    say("HEALTHCHECK  0; 1 where nobody listens");
    end(child, find(instructions, "STOPSIGNAL").args[0]);
    await exited;
    if (child.exitCode !== 0) throw new Error(`It ended with ${child.signalCode ?? child.exitCode}`);
    say("SIGTERM      ended with 0");
  } catch (error) {
    child.kill("SIGKILL");
    throw new Error(`The image does not work:\n${output}`, { cause: error });
  }
}

interface Command {
  readonly file: string;
  readonly args: readonly string[];
  readonly isReadOnly: boolean;
  readonly told: string;
}

/** As the image's user on a read-only root, where this machine lets us: root on Linux with namespaces of its own. */
function inContainer(command: readonly string[], user: string): Command {
  const [file = "", ...args] = command;
  const [uid = "", gid = uid] = user.split(":");
  const readOnly = 'mount --make-rprivate / && mount -o remount,bind,ro / && exec "$@"';
  const drop = [
    "setpriv",
    `--reuid=${uid}`,
    `--regid=${gid}`,
    "--clear-groups",
    "--no-new-privs",
    "--inh-caps=-all",
  ];
  const isolated = ["--mount", "sh", "-c", readOnly, "sh", ...drop];
  if (isRoot && spawnSync("unshare", [...isolated, "true"]).status === 0) {
    return {
      file: "unshare",
      args: [...isolated, file, ...args],
      isReadOnly: true,
      told: `user ${user} without capabilities, on a read-only file system`,
    };
  }
  return {
    file,
    args,
    isReadOnly: false,
    told: "this user, on a file system that it may write: no root, or no namespaces",
  };
}

async function expectWrites(isReadOnly: boolean, cwd: string, user: string): Promise<void> {
  if (!isReadOnly) return;
  const { file, args } = inContainer(["touch", join(cwd, "x")], user);
  const outcome = await run(file, [...args]).then(
    () => "written",
    ({ stderr }: { stderr: string }) => stderr.trim(),
  );
  if (!/Read-only file system/.test(outcome)) throw new Error(`A file in ${cwd} was not refused: ${outcome}`);
}

function end(child: ChildProcess, signal: string | undefined): void {
  // `unshare` and `setpriv` run the command in their own place, so that the signal meets Node itself.
  if (signal !== "SIGTERM") throw new Error(`STOPSIGNAL is ${signal}; the service drains at SIGTERM`);
  child.kill(signal);
}
