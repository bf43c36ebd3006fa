import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { findProgram } from "../../test/support/programs.ts";
import { mustRun, run } from "./command.ts";

const PACKAGES = [
  ...["podman", "buildah", "runc", "netavark", "aardvark-dns", "iptables"],
  "mmdebstrap",
] as const;
const COMPOSE = "podman-compose==1.6.0";

export interface Podman {
  /** The environment in which `podman` and `podman-compose` work on storage of their own. */
  readonly env: NodeJS.ProcessEnv;
  readonly podman: string;
  /** The program, then its first arguments. */
  readonly compose: readonly string[];
}

/**
 * Prepares podman with storage, networks and a temporary folder below `folder`, so that no container, image or network of
 * another podman is touched. Installs what is missing (root on Debian). Returns the reason if it cannot.
 */
export async function preparePodman(folder: string): Promise<Podman | string> {
  if (process.getuid?.() !== 0)
    return "podman is used as root only, since the edge publishes ports 80 and 443";
  const missing = await missingPackages();
  if (missing.length > 0) {
    const aptGet = findProgram("apt-get");
    if (aptGet === undefined) return `${missing.join(", ")} is not installed`;
    const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
    await mustRun(aptGet, ["update", "-qq"], { env });
    await mustRun(aptGet, ["install", "-y", "-qq", "--no-install-recommends", ...missing], { env });
  }
  const python = findProgram("python3");
  if (python === undefined) return "python3 is not installed";
  for (const name of ["bin", "networks", "tmp"]) await mkdir(join(folder, name), { recursive: true });
  const programs = join(folder, "venv", "bin");
  if ((await run(join(programs, "podman-compose"), ["--version"])).code !== 0) {
    await mustRun(python, ["-m", "venv", join(folder, "venv")]);
    await mustRun(join(programs, "pip"), ["-q", "install", COMPOSE]);
  }
  await writeFile(join(folder, "storage.conf"), storageConf(folder));
  await writeFile(join(folder, "containers.conf"), containersConf(folder));
  const podman = join(folder, "bin", "podman");
  const shim = join(import.meta.dirname, "podman-shim.ts");
  await writeFile(podman, `#!/bin/sh\nexec '${process.execPath}' '${shim}' "$@"\n`);
  await chmod(podman, 0o755);
  const { STORAGE_DRIVER: _, PATH, ...rest } = process.env;
  return {
    podman,
    compose: [join(programs, "python"), join(import.meta.dirname, "podman-compose.py")],
    env: {
      ...rest,
      PATH: `${join(folder, "bin")}:${PATH}`,
      REAL_PODMAN: findProgram("podman"),
      CONTAINERS_CONF: join(folder, "containers.conf"),
      CONTAINERS_STORAGE_CONF: join(folder, "storage.conf"),
      BUILDAH_ISOLATION: "chroot",
      // The other format has no HEALTHCHECK.
      BUILDAH_FORMAT: "docker",
    },
  };
}

async function missingPackages(): Promise<string[]> {
  const dpkg = findProgram("dpkg-query");
  if (dpkg === undefined) return [...PACKAGES];
  const found = await Promise.all(
    PACKAGES.map(async (name) => ({ name, stdout: (await run(dpkg, ["--status", name])).stdout })),
  );
  return found.filter(({ stdout }) => !stdout.includes("ok installed")).map(({ name }) => name);
}

function storageConf(folder: string): string {
  return `[storage]
driver = "overlay"
graphroot = "${folder}/storage"
runroot = "${folder}/run"
`;
}

/** Settings that require neither systemd nor seccomp. */
function containersConf(folder: string): string {
  return `[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
seccomp_profile = "unconfined"
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
tmp_dir = "${folder}/tmp"
static_dir = "${folder}/storage/libpod"
volume_path = "${folder}/storage/volumes"
[network]
network_backend = "netavark"
network_config_dir = "${folder}/networks"
`;
}
