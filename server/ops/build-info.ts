import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Gauge, type Registry } from "prom-client";

/** Which build of the service this is. */
export interface BuildInfo {
  /** The version in package.json. */
  readonly version: string;
  /** The commit it was built from, or "unknown". */
  readonly commit: string;
}

const UNKNOWN = "unknown";
const GIT_MS_MAX = 2_000;

/**
 * Reads the version from package.json in `root`. The commit is the one given, such as by the image, or
 * else that of the git checkout in `root`. Without either it is "unknown".
 */
export function readBuildInfo(root: string, commit: string | undefined): BuildInfo {
  const { version }: { version: string } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  return { version, commit: commit ?? readCommit(root) };
}

/** For people: `inventory-service 0.2.0 (commit 0123456789ab)`. */
export function versionLine({ version, commit }: BuildInfo): string {
  return `inventory-service ${version} (commit ${commit})`;
}

function readCommit(root: string): string {
  const gitDir = join(root, ".git");
  // Without this check git would report the commit of a repository further up.
  if (!existsSync(gitDir)) {
    return UNKNOWN;
  }
  try {
    const args = [`--git-dir=${gitDir}`, "rev-parse", "--short=12", "HEAD"];
    const output = execFileSync("git", args, {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
      timeout: GIT_MS_MAX,
    });
    return output.trim();
  } catch {
    return UNKNOWN;
  }
}

/** Adds `inventory_build_info`, whose value is always 1. */
export function addBuildInfo(registry: Registry, { version, commit }: BuildInfo): void {
  new Gauge({
    name: "inventory_build_info",
    help: "Version and commit of this server; the value is always 1",
    labelNames: ["version", "commit"],
    registers: [registry],
  }).set({ version, commit }, 1);
}
