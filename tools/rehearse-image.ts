/**
 * Follows the Dockerfile on a machine without a container engine. Builds each stage in a folder of its own, from the files that
 * .dockerignore lists, with real installs by npm. Then starts the last stage with its CMD and its USER on a read-only file
 * system, and requests /readyz, the page and an RPC, and runs the HEALTHCHECK. SIGTERM must end it with 0.
 *
 * The devDependency `node` and this machine's libraries replace the base image.
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
/** The pinned Node comes first, and also runs the machine's npm. */
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

/** Runs the instructions of a stage in a folder that represents the root of the file system. */
async function buildStage(
  stage: Stage,
  folder: string,
  context: readonly string[],
  built: ReadonlyMap<string, string>,
): Promise<string> {
  // npm's settings, such as the registry and its certificates, are those of this machine.
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
          if (other === undefined) throw new Error(`No stage ${from} before this one`);
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

/** Starts the image and checks its responses. Throws if one is wrong. */
async function tryImage(instructions: readonly Instruction[], image: string): Promise<void> {
  const port = await freePort();
  const env = {
    PATH,
    ...settingsOf(instructions.filter(({ name }) => name === "ENV").flatMap(({ args }) => args)),
    // Loopback instead of 0.0.0.0: writes need no token here.
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
        if (child.exitCode !== null) throw new Hopeless("it has exited");
        return (await fetch(`${url}/readyz`)).status === 200;
      },
      "the image is ready",
      START_MS_MAX,
    );
    say(`started      by ${command.description}; /readyz 200`);
    await expectReadOnly(command.isReadOnly, cwd, user);
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
    if (dead !== 1) throw new Error(`The health check of an unused port exited with ${dead}`);
    say("HEALTHCHECK  0; 1 on an unused port");
    end(child, find(instructions, "STOPSIGNAL").args[0]);
    await exited;
    if (child.exitCode !== 0) throw new Error(`It exited with ${child.signalCode ?? child.exitCode}`);
    say("SIGTERM      exited with 0");
  } catch (error) {
    child.kill("SIGKILL");
    throw new Error(`The image does not work:\n${output}`, { cause: error });
  }
}

interface Command {
  readonly file: string;
  readonly args: readonly string[];
  readonly isReadOnly: boolean;
  readonly description: string;
}

/** Runs the command as the image's user on a read-only root, if this machine allows it: as root, on Linux with namespaces. */
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
      description: `user ${user} without capabilities, on a read-only file system`,
    };
  }
  return {
    file,
    args,
    isReadOnly: false,
    description: "this user, on a writable file system: no root privileges, or no namespaces",
  };
}

async function expectReadOnly(isReadOnly: boolean, cwd: string, user: string): Promise<void> {
  if (!isReadOnly) return;
  const { file, args } = inContainer(["touch", join(cwd, "x")], user);
  const outcome = await run(file, [...args]).then(
    () => "written",
    ({ stderr }: { stderr: string }) => stderr.trim(),
  );
  if (!/Read-only file system/.test(outcome))
    throw new Error(`Writing a file in ${cwd} was not refused: ${outcome}`);
}

function end(child: ChildProcess, signal: string | undefined): void {
  // `unshare` and `setpriv` replace themselves by the command, so that Node receives the signal.
  if (signal !== "SIGTERM") throw new Error(`STOPSIGNAL is ${signal}; the service drains at SIGTERM`);
  child.kill(signal);
}
