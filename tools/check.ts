import { execFile } from "node:child_process";
import { existsSync, globSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { promisify } from "node:util";
import { findDecisionFaults } from "./decisions.ts";
import { findBrokenLinks } from "./links.ts";
import { findViolations } from "./structure.ts";

// npm run check: every check that does not run the service.

const root = join(import.meta.dirname, "..");
const run = promisify(execFile);
const PATH = [join(root, "node_modules/.bin"), process.env["PATH"]].join(delimiter);

/**
 * The protos of the last release, for `buf breaking`: a clone does not always have its tag. A release renews the file:
 * `npx buf build --exclude-source-info -o tools/protos-VERSION.binpb`.
 */
const RELEASED_PROTOS = "tools/protos-0.1.0.binpb";

/** Resolves with the faults, or with an empty text. */
type Check = () => Promise<string>;

const CHECKS: Readonly<Record<string, Check>> = {
  types: () => command("tsc"),
  "types of the page": () => command("tsc", "-p", "web"),
  "types of the page's tests": () => command("tsc", "-p", "test/web"),
  "types of the examples": exampleTypes,
  "examples have the versions that the tests run": exampleVersions,
  "lint and format": () => command("biome", "ci", "--colors=off", "--error-on-warnings", "."),
  "buf lint": () => command("buf", "lint"),
  "buf format": () => command("buf", "format", "--diff", "--exit-code"),
  "buf breaking": () => command("buf", "breaking", "--against", RELEASED_PROTOS),
  "gen/ is what buf generates": () => compareGenerated("buf.gen.yaml", "gen"),
  "test/conformance/gen/ is what buf generates": () =>
    compareGenerated("test/conformance/buf.gen.yaml", "test/conformance/gen"),
  "package-lock.json names every platform": findMissingPlatforms,
  "npm ci has no warnings": installWarnings,
  structure: async () => findViolations(root).join("\n"),
  "form of the decision pages": async () => findDecisionFaults(root).join("\n"),
  "links and file names in the pages": async () => findBrokenLinks(root).join("\n"),
};

const outcomes = await Promise.all(
  Object.entries(CHECKS).map(async ([name, check]) => ({ name, faults: await check() })),
);
for (const { name, faults } of outcomes) {
  process.stdout.write(faults === "" ? `ok    ${name}\n` : `WRONG ${name}\n${faults}\n`);
}
process.exitCode = outcomes.some(({ faults }) => faults !== "") ? 1 : 0;

async function command(name: string, ...args: string[]): Promise<string> {
  return commandIn(root, name, ...args);
}

async function commandIn(cwd: string, name: string, ...args: string[]): Promise<string> {
  try {
    await run(join(root, "node_modules/.bin", name), args, {
      cwd,
      env: { ...process.env, PATH },
      maxBuffer: 16 * 1024 * 1024,
    });
    return "";
  } catch (error) {
    const { stdout = "", stderr = "" } = error as { stdout?: string; stderr?: string };
    return `${stdout}${stderr}`.trim() || String(error);
  }
}

async function compareGenerated(template: string, folder: string): Promise<string> {
  const fresh = await mkdtemp(join(tmpdir(), "gen-"));
  try {
    const failed = await command("buf", "generate", "--template", template, "--output", fresh);
    if (failed !== "") {
      return failed;
    }
    await run("diff", ["-r", join(fresh, folder), join(root, folder)]);
    return "";
  } catch (error) {
    return `Run 'npm run generate' and commit ${folder}/.\n${(error as { stdout?: string }).stdout ?? String(error)}`;
  } finally {
    await rm(fresh, { recursive: true, force: true });
  }
}

/** Generates the examples' code first, which is not in git. */
async function exampleTypes(): Promise<string> {
  for (const template of globSync("examples/*/buf.gen.yaml", { cwd: root })) {
    const folder = join(root, dirname(template));
    // Go's plugins need Go.
    if (existsSync(join(folder, "go.mod"))) continue;
    const failed = await commandIn(folder, "buf", "generate");
    if (failed !== "") return failed;
  }
  return command("tsc", "-p", "examples");
}

/** The examples' own package.json serves a copy of the folder. In this checkout they run with the packages of the root. */
async function exampleVersions(): Promise<string> {
  type Manifest = Record<"dependencies" | "devDependencies", Record<string, string> | undefined>;
  const read = async (file: string): Promise<Manifest> =>
    JSON.parse(await readFile(join(root, file), "utf8"));
  const versionsOf = (manifest: Manifest) => ({ ...manifest.devDependencies, ...manifest.dependencies });
  const ours = versionsOf(await read("package.json"));
  const files = globSync("examples/*/package.json", { cwd: root });
  const faults = files.map(async (file) =>
    Object.entries(versionsOf(await read(file)))
      .filter(([name, version]) => ours[name] !== version)
      .map(([name, version]) => `${file} has ${name} ${version}, package.json ${ours[name] ?? "has none"}`),
  );
  return (await Promise.all(faults)).flat().join("\n");
}

/**
 * What `npm ci` warns of under the pinned Node, such as a dependency that needs a newer one or an install script that
 * package.json does not approve. `.npmrc` hides npm's warnings, because npm compares each dependency with the Node that
 * npm runs on, and that is not the one that runs the service.
 */
async function installWarnings(): Promise<string> {
  try {
    const { stderr } = await run("npm", ["ci", "--dry-run", "--loglevel=warn"], {
      cwd: root,
      env: { ...process.env, PATH },
    });
    return stderr.trim();
  } catch (error) {
    return (error as { stderr?: string }).stderr?.trim() || String(error);
  }
}

/** `npm ci` refuses a lock file without the packages of other platforms, which npm leaves out where it cannot fetch them. */
async function findMissingPlatforms(): Promise<string> {
  const lock: { packages: Record<string, { optionalDependencies?: Record<string, string> }> } = JSON.parse(
    await readFile(join(root, "package-lock.json"), "utf8"),
  );
  const wanted = Object.values(lock.packages).flatMap((each) => Object.keys(each.optionalDependencies ?? {}));
  return wanted
    .filter((name) => !Object.keys(lock.packages).some((path) => path.endsWith(`node_modules/${name}`)))
    .join("\n");
}
