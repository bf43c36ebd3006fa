/**
 * Replaces podman in PATH, and adds what podman 4.6 or later does under systemd: podman-compose relies on it for `depends_on`, `--wait` and health checks.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const HEALTHY_MS_MAX = 180_000;
const INTERVAL_MS = 500;
const CHECK_MS_MAX = 15_000;
/** Options of `create` and `run` that podman 4.3 does not have, or that do harm there. */
const DROPPED = [
  // The dependencies of a dependency are not started.
  "--requires=",
  // Health checks are run by `wait`, not by a timer.
  "--health-startup-interval=",
  // The log driver has the size alone.
  "--log-opt=max-file=",
];

const podman = process.env["REAL_PODMAN"] ?? "/usr/bin/podman";
const args = process.argv.slice(2);
const [command] = args;

if (command === "--version") {
  process.stdout.write("podman version 4.6.0\n");
} else if (command === "wait" && args.some((arg) => arg.startsWith("--condition=healthy"))) {
  process.exitCode = await waitUntilHealthy(args.slice(1).filter((arg) => !arg.startsWith("-")));
} else if (command === "build") {
  build();
} else {
  pass(command === "create" || command === "run" ? adapt(args) : args);
}

function pass(options: readonly string[]): void {
  process.exitCode = spawnSync(podman, options, { stdio: "inherit" }).status ?? 1;
}

/** HEALTHCHECK has no --start-interval in this version. */
function build(): void {
  const at = args.indexOf("-f") + 1;
  const file = args[at];
  if (at === 0 || file === undefined) {
    pass(args);
    return;
  }
  const folder = mkdtempSync(join(tmpdir(), "dockerfile-"));
  try {
    const adapted = join(folder, "Dockerfile");
    writeFileSync(adapted, readFileSync(file, "utf8").replace(/ --start-interval=\S+/, ""));
    pass(args.with(at, adapted));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function adapt(options: readonly string[]): string[] {
  const adapted: string[] = [];
  for (let index = 0; index < options.length; index++) {
    const option = options[index] ?? "";
    if (option === "--health-startup-interval") index++;
    else if (!DROPPED.some((prefix) => option.startsWith(prefix))) adapted.push(option);
  }
  // Docker's read-only containers have no writable /tmp.
  if (adapted.includes("--read-only")) adapted.splice(1, 0, "--read-only-tmpfs=false");
  return adapted;
}

async function waitUntilHealthy(names: readonly string[]): Promise<number> {
  const deadline = Date.now() + HEALTHY_MS_MAX;
  let waiting = [...names];
  while (Date.now() < deadline) {
    waiting = waiting.filter(
      (name) =>
        spawnSync(podman, ["healthcheck", "run", name], { stdio: "ignore", timeout: CHECK_MS_MAX }).status !==
        0,
    );
    if (waiting.length === 0) return 0;
    await sleep(INTERVAL_MS);
  }
  return 1;
}
