import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { findBrokenLinks } from "./links.ts";
import { findViolations } from "./structure.ts";

// npm run check: everything that can be said about the code without running it.

const root = join(import.meta.dirname, "..");
const run = promisify(execFile);

/** Resolves with what is wrong, or with nothing. */
type Check = () => Promise<string>;

const CHECKS: Readonly<Record<string, Check>> = {
  types: () => command("tsc"),
  "types of the page": () => command("tsc", "-p", "web"),
  "types of the page's tests": () => command("tsc", "-p", "test/web"),
  "lint and format": () => command("biome", "ci", "--colors=off", "--error-on-warnings", "."),
  "buf lint": () => command("buf", "lint"),
  "buf format": () => command("buf", "format", "--diff", "--exit-code"),
  "gen/ is what buf generates": () => staleGenerated("buf.gen.yaml", "gen"),
  "test/conformance/gen/ is what buf generates": () =>
    staleGenerated("test/conformance/buf.gen.yaml", "test/conformance/gen"),
  "package-lock.json names every platform": platformsMissing,
  structure: async () => findViolations(root).join("\n"),
  "links and file names in the pages": async () => findBrokenLinks(root).join("\n"),
};

const outcomes = await Promise.all(
  Object.entries(CHECKS).map(async ([name, check]) => ({ name, wrong: await check() })),
);
for (const { name, wrong } of outcomes) {
  process.stdout.write(wrong === "" ? `ok    ${name}\n` : `WRONG ${name}\n${wrong}\n`);
}
process.exitCode = outcomes.some(({ wrong }) => wrong !== "") ? 1 : 0;

async function command(name: string, ...args: string[]): Promise<string> {
  try {
    await run(join(root, "node_modules/.bin", name), args, { cwd: root, maxBuffer: 16 * 1024 * 1024 });
    return "";
  } catch (error) {
    const { stdout = "", stderr = "" } = error as { stdout?: string; stderr?: string };
    return `${stdout}${stderr}`.trim() || String(error);
  }
}

async function staleGenerated(template: string, folder: string): Promise<string> {
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

/** `npm ci` refuses a lock file without the packages of other platforms, which npm leaves out where it cannot fetch them. */
async function platformsMissing(): Promise<string> {
  const lock: { packages: Record<string, { optionalDependencies?: Record<string, string> }> } = JSON.parse(
    await readFile(join(root, "package-lock.json"), "utf8"),
  );
  const wanted = Object.values(lock.packages).flatMap((each) => Object.keys(each.optionalDependencies ?? {}));
  return wanted
    .filter((name) => !Object.keys(lock.packages).some((path) => path.endsWith(`node_modules/${name}`)))
    .join("\n");
}
