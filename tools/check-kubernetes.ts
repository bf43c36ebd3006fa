/**
 * Builds every overlay with kustomize, or with kubectl, which includes it, and decodes the result strictly with Kubernetes'
 * own Go types. Needs one of the two, and Go, which downloads the types once.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { join } from "node:path";
import { findProgram } from "../test/support/programs.ts";

const root = join(import.meta.dirname, "..");
const OVERLAYS = [
  "base",
  "overlays/dev",
  "overlays/production",
  "overlays/production-with-redis",
  "overlays/cluster",
];

const kustomize = findProgram("kustomize");
const kubectl = findProgram("kubectl");
const command = kustomize ? [kustomize, "build"] : kubectl ? [kubectl, "kustomize"] : undefined;
if (command === undefined) {
  process.stderr.write("Neither kustomize nor kubectl is installed\n");
  process.exitCode = 1;
} else {
  for (const overlay of OVERLAYS) {
    const [file = "", ...args] = command;
    const input = execFileSync(file, [...args, join(root, "deploy/kubernetes", overlay)]);
    process.stdout.write(`${overlay}\n`);
    const { status, error } = spawnSync("go", ["run", "."], {
      cwd: join(import.meta.dirname, "kubernetes-check"),
      input,
      stdio: ["pipe", "inherit", "inherit"],
    });
    if (error) throw error;
    if (status !== 0) process.exitCode = 1;
  }
}
