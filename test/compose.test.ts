import assert from "node:assert/strict";
import { execFile, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { parse } from "yaml";
import { z } from "zod";
import { readConfig } from "../server/config.ts";
import { TOPICS } from "./kafka/platform.ts";
import { findProgram, kafkaVersion } from "./support/programs.ts";

const run = promisify(execFile);
const root = join(import.meta.dirname, "..");
const FILE = join(root, "docker-compose.yml");

const Service = z.strictObject({
  image: z.string().optional(),
  build: z.string().optional(),
  command: z.array(z.string()).optional(),
  entrypoint: z.array(z.string()).optional(),
  environment: z.record(z.string(), z.union([z.string(), z.number()])).default({}),
  ports: z.array(z.string()).default([]),
  volumes: z.array(z.string()).default([]),
  healthcheck: z
    .strictObject({
      test: z.array(z.string()),
      interval: z.string(),
      timeout: z.string(),
      retries: z.number(),
    })
    .optional(),
  depends_on: z
    .record(
      z.string(),
      z.strictObject({ condition: z.enum(["service_healthy", "service_completed_successfully"]) }),
    )
    .default({}),
  restart: z.enum(["no", "unless-stopped"]).optional(),
  stop_grace_period: z.string().optional(),
});

const Compose = z.strictObject({
  name: z.string(),
  services: z.strictObject({ redis: Service, kafka: Service, topics: Service, inventory: Service }),
  volumes: z.record(z.string(), z.null()),
});

const { services, volumes } = Compose.parse(parse(readFileSync(FILE, "utf8")));

/** Why docker cannot check the file, or `false`. The check itself needs no engine. */
function composeMissing(): string | false {
  const docker = findProgram("docker");
  if (docker === undefined) {
    return "docker is not installed";
  }
  return spawnSync(docker, ["compose", "version"]).status === 0 ? false : "docker has no compose plugin";
}

describe("docker-compose.yml", () => {
  it("has Redis that loses nothing it acknowledged", () => {
    const command = services.redis.command?.join(" ") ?? "";
    assert.match(command, /--appendonly yes/);
    assert.match(command, /--appendfsync always/);
    assert.match(command, /--maxmemory-policy noeviction/);
  });

  it("waits for what each service needs, and each of those can say that it is there", () => {
    assert.deepEqual(services.inventory.depends_on, {
      redis: { condition: "service_healthy" },
      topics: { condition: "service_completed_successfully" },
    });
    assert.deepEqual(services.topics.depends_on, { kafka: { condition: "service_healthy" } });
    assert.ok(services.redis.healthcheck);
    assert.ok(services.kafka.healthcheck);
  });

  it("keeps the data of both in volumes that are declared", () => {
    for (const { volumes: mounts } of [services.redis, services.kafka]) {
      const [name = ""] = (mounts[0] ?? "").split(":");
      assert.ok(name in volumes, name);
    }
  });

  it("starts the service with settings that it knows and accepts", () => {
    const environment = Object.fromEntries(
      Object.entries(services.inventory.environment).map(([name, value]) => [name, String(value)]),
    );
    const known = readFileSync(join(root, "server/config.ts"), "utf8");
    for (const name of Object.keys(environment)) {
      assert.match(known, new RegExp(`^  ${name}: `, "m"), `${name} is a setting`);
    }
    const config = readConfig(environment);
    assert.equal(config.redis?.url, "redis://redis:6379");
    assert.deepEqual(config.kafka?.brokers, ["kafka:9092"]);
    assert.equal(config.demo, false);
    assert.ok(services.inventory.ports.includes(`${config.port}:${config.port}`));
  });

  it("advertises Kafka under the name and port that the service is given", () => {
    const { KAFKA_ADVERTISED_LISTENERS, KAFKA_CONTROLLER_QUORUM_VOTERS } = services.kafka.environment;
    assert.match(String(KAFKA_ADVERTISED_LISTENERS), /PLAINTEXT:\/\/kafka:9092/);
    assert.match(String(KAFKA_CONTROLLER_QUORUM_VOTERS), /^1@kafka:9093$/);
    assert.equal(services.kafka.image, `apache/kafka:${kafkaVersion}`, "the Kafka that the tests run");
    assert.equal(services.topics.image, services.kafka.image);
  });

  it("creates the topics that the service has by default", () => {
    const script = services.topics.command?.join("\n") ?? "";
    const created = /for topic in ([^;]+);/.exec(script)?.[1]?.split(" ");
    assert.deepEqual(created?.toSorted(), Object.keys(TOPICS).sort());
  });

  it("builds an image whose files are there, not as root", () => {
    assert.equal(services.inventory.build, ".");
    const dockerfile = readFileSync(join(root, "Dockerfile"), "utf8");
    const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, from = ""]) =>
      from.split(" "),
    );
    assert.ok(copied.length > 0);
    for (const path of copied) {
      assert.ok(existsSync(join(root, path)), path);
    }
    assert.match(dockerfile, /^USER node$/m);
    assert.match(dockerfile, /^HEALTHCHECK /m);
    assert.match(dockerfile, /npm ci --omit=dev/);
  });

  it("is accepted by docker compose", { skip: composeMissing() }, async () => {
    await run("docker", ["compose", "-f", FILE, "config", "--quiet"]);
  });
});
