import { spawn } from "node:child_process";
import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { findProgram } from "../test/support/programs.ts";

const DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1";
const FETCH_MS_MAX = 10 * 60_000;

export interface Artifact {
  readonly groupId: string;
  readonly artifactId: string;
  readonly version: string;
}

/**
 * Downloads artifacts and their runtime dependencies into `folder`, which is created only when complete. Returns why it
 * could not, or `undefined`.
 */
export async function fetchJars(artifacts: readonly Artifact[], folder: string): Promise<string | undefined> {
  const maven = findProgram("mvn");
  if (maven === undefined) return "Maven is not installed";
  await mkdir(dirname(folder), { recursive: true });
  const work = await mkdtemp(join(dirname(folder), ".fetch-"));
  try {
    await writeFile(join(work, "pom.xml"), pomOf(artifacts));
    const jars = join(work, "jars");
    const child = spawn(
      maven,
      [
        ...["-B", "-q", "-C", "-Dstyle.color=never", "-f", join(work, "pom.xml")],
        ...[`${DEPENDENCY_PLUGIN}:copy-dependencies`, "-DincludeScope=runtime", `-DoutputDirectory=${jars}`],
      ],
      { stdio: ["ignore", 2, 2], timeout: FETCH_MS_MAX },
    );
    const code = await new Promise<number>((resolve) => {
      child.once("error", () => resolve(-1));
      child.once("exit", (status) => resolve(status ?? -1));
    });
    if (code !== 0) {
      return `Maven ended with exit code ${code}. Is the network, or Maven's mirror, reachable?`;
    }
    await rename(jars, folder);
    return undefined;
  } catch (error) {
    return String(error);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

function pomOf(artifacts: readonly Artifact[]): string {
  const dependencies = artifacts.map(
    ({ groupId, artifactId, version }) =>
      `<dependency><groupId>${groupId}</groupId><artifactId>${artifactId}</artifactId><version>${version}</version></dependency>`,
  );
  return (
    '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>' +
    `<groupId>inventory</groupId><artifactId>jars</artifactId><version>1</version><dependencies>${dependencies.join("")}</dependencies></project>`
  );
}
