import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { builtinModules } from "node:module";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { buildContext, readDockerfile } from "../tools/dockerfile.ts";
import { startTestApp } from "./support/app.ts";
import { freePort } from "./support/free-port.ts";
import { findProgram, need } from "./support/programs.ts";

// Tests of the image without building it. `npm run compose:walkthrough` builds and runs it.

const root = join(import.meta.dirname, "..");
const run = promisify(execFile);
const SCRIPTS = "server/redis/scripts";
const stages = readDockerfile(readFileSync(join(root, "Dockerfile"), "utf8"));
const image = stages.at(-1)?.instructions ?? [];
const manifest: { dependencies: Record<string, string>; devDependencies: Record<string, string> } =
  JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const hadolint = findProgram("hadolint");
const openssl = need("openssl");

const last = (name: string) => image.findLast((instruction) => instruction.name === name);

/** The files of the checkout that are copied into the image. */
function filesOfImage(): Set<string> {
  const context = buildContext(root);
  const copied = image
    .filter(({ name, flags }) => name === "COPY" && flags["from"] === undefined)
    .flatMap(({ args }) => args.slice(0, -1));
  return new Set(
    context.filter((file) => copied.some((source) => file === source || file.startsWith(`${source}/`))),
  );
}

/** The run-time imports of these files, transitively: files of the checkout, and packages. */
function importsOf(entrances: readonly string[]): { files: Set<string>; packages: Set<string> } {
  const files = new Set<string>();
  const packages = new Set<string>();
  const waiting = [...entrances];
  for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
    if (files.has(file)) continue;
    files.add(file);
    const text = readFileSync(join(root, file), "utf8");
    const imports = text.matchAll(
      /^(?:import|(?:import|export)\s+(?!type\b)[\w*{][^"';=()]*?\bfrom)\s+"([^"]+)"/gm,
    );
    for (const [, target = ""] of imports) {
      if (target.startsWith(".")) waiting.push(relative(root, join(root, dirname(file), target)));
      else if (!target.startsWith("node:") && !builtinModules.includes(target)) {
        const parts = target.split("/");
        packages.add(parts.slice(0, target.startsWith("@") ? 2 : 1).join("/"));
      }
    }
  }
  return { files, packages };
}

describe("the image", () => {
  it("has the Node of the tests in every stage", () => {
    for (const { image: base } of stages) {
      assert.equal(base, `node:${manifest.devDependencies["node"]}-slim`);
    }
  });

  it("runs Node as process 1 and as a user other than root", () => {
    assert.deepEqual(last("CMD")?.args.slice(0, 1), ["node"], "not npm, which does not forward signals");
    assert.equal(last("CMD")?.args.at(-1), "server/main.ts");
    assert.match(last("CMD")?.text ?? "", /^\[/, "without a shell");
    assert.match(last("USER")?.text ?? "", /^[1-9]\d*:[1-9]\d*$/, "numeric, which Kubernetes can check");
    assert.equal(last("STOPSIGNAL")?.text, "SIGTERM");
    const after = image.slice(image.findLastIndex(({ name }) => name === "USER"));
    assert.ok(!after.some(({ name }) => name === "COPY" || name === "RUN"), "its files belong to root");
  });

  it("has production dependencies only, and the built page", () => {
    const [page, dependencies] = stages;
    assert.ok(
      dependencies?.instructions.some(({ name, text }) => name === "RUN" && text === "npm ci --omit=dev"),
    );
    assert.ok(page?.instructions.some(({ name, text }) => name === "RUN" && text === "npm run build"));
    const taken = image.filter(({ flags }) => flags["from"] !== undefined);
    assert.deepEqual(
      taken.map(({ flags, args }) => [flags["from"], ...args]),
      [
        ["dependencies", "/app/node_modules", "node_modules"],
        ["page", "/app/dist/web", "dist/web"],
      ],
    );
  });

  it("has every file and package that the service imports", () => {
    const files = filesOfImage();
    const needed = importsOf([
      "server/main.ts",
      "cli/main.ts",
      "cli/program.ts",
      "tools/adopt.ts",
      "tools/message.ts",
      "tools/redrive.ts",
      "tools/probe-health.ts",
      "tools/token.js",
    ]);
    assert.ok(needed.files.size > 50, `${needed.files.size} files were found`);
    assert.deepEqual(
      [...needed.files].filter((file) => !files.has(file)),
      [],
    );
    assert.deepEqual(
      [...needed.packages].filter((name) => manifest.dependencies[name] === undefined),
      [],
    );
    const scripts = readdirSync(join(root, SCRIPTS)).map((script) => `${SCRIPTS}/${script}`);
    assert.ok(scripts.length > 0);
    assert.deepEqual(
      scripts.filter((script) => !files.has(script)),
      [],
      "files that are read at run time",
    );
  });

  it("is built from listed files only: no secrets, no tests, no history", () => {
    const context = buildContext(root);
    const tops = new Set(context.map((file) => file.split("/")[0]));
    assert.deepEqual([...tops].toSorted(), [
      ".npmrc",
      "cli",
      "gen",
      "package-lock.json",
      "package.json",
      "server",
      "tools",
      "tsconfig.json",
      "vite.config.ts",
      "web",
    ]);
    for (const { instructions } of stages) {
      for (const { args, flags } of instructions.filter(({ name }) => name === "COPY")) {
        for (const source of flags["from"] === undefined ? args.slice(0, -1) : []) {
          assert.ok(
            context.some((file) => file === source || file.startsWith(`${source}/`)),
            `the context has ${source}`,
          );
        }
      }
    }
  });

  it("has a health check that tells a running server from a stopped one", async () => {
    const [word, ...command] = last("HEALTHCHECK")?.args ?? [];
    assert.deepEqual([word, command[0]], ["CMD", "node"]);
    await using app = await startTestApp();
    assert.equal(await probe(command.slice(1), { PORT: String(app.port) }), 0);
    assert.equal(await probe(command.slice(1), { PORT: String(await freePort()) }), 1, "no server");
    const broken = createServer((_, response) => response.writeHead(500).end());
    broken.listen(0, "127.0.0.1");
    await once(broken, "listening");
    const { port } = broken.address() as AddressInfo;
    assert.equal(await probe(command.slice(1), { PORT: String(port) }), 1, "an error response");
    broken.close();
  });

  it("has a health check that uses TLS if the server does", { skip: openssl.missing }, async () => {
    const folder = await mkdtemp(join(tmpdir(), "inventory-image-"));
    try {
      const [TLS_KEY, TLS_CERT] = [join(folder, "key.pem"), join(folder, "cert.pem")];
      const request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
      const subject = ["-subj", "/CN=inventory.example", "-days", "2", "-keyout", TLS_KEY, "-out", TLS_CERT];
      await run(openssl.path, [...request, ...subject]);
      await using app = await startTestApp({ TLS_KEY, TLS_CERT });
      assert.equal(await probe(["tools/probe-health.ts"], { PORT: String(app.port), TLS_CERT }), 0);
      assert.equal(await probe(["tools/probe-health.ts"], { PORT: String(app.port) }), 1, "without TLS");
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });

  it("has no hadolint findings", {
    skip: hadolint === undefined && "hadolint is not installed",
  }, async () => {
    await run(hadolint ?? "", [join(root, "Dockerfile")]);
  });
});

describe("the reader of Dockerfiles", () => {
  it("substitutes build arguments, joins lines, and reads both forms", () => {
    const [stage] = readDockerfile(
      `ARG V=1.2\n# no\nFROM base:\${V} AS one\nRUN a \\\n  && b\nCMD ["x y", "z"]\n`,
    );
    assert.deepEqual([stage?.image, stage?.name], ["base:1.2", "one"]);
    assert.deepEqual(
      stage?.instructions.map(({ name, args }) => [name, args]),
      [
        ["RUN", ["a", "&&", "b"]],
        ["CMD", ["x y", "z"]],
      ],
    );
  });

  it("rejects unknown instructions", () => {
    assert.throws(() => readDockerfile('FROM a\nSHELL ["sh"]'), /Unknown instruction: SHELL/);
    assert.throws(() => readDockerfile("RUN a"), /Before the first FROM/);
  });

  it("applies .dockerignore like a builder: also to hidden files, and the last match decides", async () => {
    const folder = await mkdtemp(join(tmpdir(), "inventory-context-"));
    try {
      await writeFile(join(folder, ".dockerignore"), "*\n!a.txt\n!sub\nsub/*.secret\n# note\n");
      await run(
        "sh",
        ["-c", "mkdir -p sub/deep .git; touch a.txt b.txt .env .git/x sub/c sub/d.secret sub/deep/e"],
        {
          cwd: folder,
        },
      );
      assert.deepEqual(buildContext(folder).toSorted(), ["a.txt", "sub/c", "sub/deep/e"]);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});

async function probe(args: readonly string[], environment: NodeJS.ProcessEnv): Promise<number> {
  return await run(process.execPath, [...args], { cwd: root, env: environment }).then(
    () => 0,
    ({ code }: { code: number }) => code,
  );
}
