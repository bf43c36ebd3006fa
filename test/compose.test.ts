import assert from "node:assert/strict";
import { execFile, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { parse } from "yaml";
import { z } from "zod";
import { readConfig } from "../server/config.ts";
import { DEAD_LETTER_BYTES_MAX } from "../server/kafka/topic-config.ts";
import { planRanges } from "../tools/cluster-plan/slots.ts";
import { TOPICS } from "./kafka/platform.ts";
import { findProgram, kafkaVersion, REDIS_SERVERS } from "./support/programs.ts";

const run = promisify(execFile);
const root = join(import.meta.dirname, "..");
const FILE = join(root, "docker-compose.yml");
/** What is added to it, and changed, for a Redis Cluster. */
const CLUSTER_FILE = join(root, "docker-compose.cluster.yml");
const TOKENS = `orders:orders:${"0".repeat(64)}`;

const Condition = z.enum(["service_started", "service_healthy", "service_completed_successfully"]);
const Address = z.strictObject({ ipv4_address: z.string() });
const Service = z.strictObject({
  image: z.string(),
  build: z
    .strictObject({ context: z.string(), args: z.record(z.string(), z.string()).default({}) })
    .optional(),
  user: z.string().optional(),
  profiles: z.array(z.string()).default([]),
  command: z.array(z.string()).optional(),
  entrypoint: z.array(z.string()).optional(),
  environment: z.record(z.string(), z.union([z.string(), z.number()])).default({}),
  secrets: z.array(z.string()).default([]),
  ports: z.array(z.string()).default([]),
  networks: z.union([z.array(z.string()), z.record(z.string(), Address)]),
  extra_hosts: z.array(z.string()).default([]),
  dns_opt: z.array(z.string()).default([]),
  logging: z
    .strictObject({
      driver: z.literal("json-file"),
      options: z.strictObject({ "max-size": z.string(), "max-file": z.string() }),
    })
    .optional(),
  volumes: z.array(z.string()).default([]),
  healthcheck: z
    .strictObject({
      test: z.array(z.string()),
      interval: z.string(),
      timeout: z.string(),
      retries: z.number(),
      start_period: z.string(),
      start_interval: z.string(),
    })
    .optional(),
  depends_on: z
    .record(z.string(), z.strictObject({ condition: Condition, required: z.boolean().default(true) }))
    .default({}),
  restart: z.enum(["no", "unless-stopped"]),
  stop_grace_period: z
    .string()
    .regex(/^\d+s$/)
    .optional(),
  read_only: z.boolean().default(false),
  cap_drop: z.array(z.string()).default([]),
  cap_add: z.array(z.string()).default([]),
  security_opt: z.array(z.string()).default([]),
  pids_limit: z.number().optional(),
  cpus: z.number().optional(),
  mem_limit: z.string(),
});

const Compose = z.looseObject({
  name: z.string(),
  services: z.strictObject({
    edge: Service,
    "inventory-orders": Service,
    "inventory-1": Service,
    "inventory-2": Service,
    "redis-1": Service,
    "redis-2": Service,
    "redis-3": Service,
    "sentinel-1": Service,
    "sentinel-2": Service,
    "sentinel-3": Service,
    kafka: Service,
    topics: Service,
    operator: Service,
  }),
  networks: z.strictObject({
    outside: z.null(),
    inside: z.strictObject({
      internal: z.literal(true),
      ipam: z.strictObject({
        config: z.tuple([z.strictObject({ subnet: z.string(), ip_range: z.string() })]),
      }),
    }),
  }),
  volumes: z.record(z.string(), z.null()),
  secrets: z.record(z.string(), z.strictObject({ file: z.string() })),
});

const Scraping = z.looseObject({
  scrape_configs: z.array(
    z.strictObject({
      job_name: z.string(),
      static_configs: z.array(
        z.strictObject({
          targets: z.array(z.string()),
          labels: z.record(z.string(), z.string()).optional(),
        }),
      ),
    }),
  ),
});

const { services, networks, volumes, secrets } = Compose.parse(
  parse(readFileSync(FILE, "utf8"), { merge: true }),
);
const OF_SHOPPERS = ["inventory-1", "inventory-2"] as const;
const SERVERS = ["inventory-orders", ...OF_SHOPPERS] as const;
const NODES = ["redis-1", "redis-2", "redis-3"] as const;
const SENTINELS = ["sentinel-1", "sentinel-2", "sentinel-3"] as const;
const inventory = services["inventory-1"];

/** The reason if docker cannot check the file, else `false`. The check needs no running engine. */
function composeMissing(): string | false {
  const docker = findProgram("docker");
  if (docker === undefined) {
    return "docker is not installed";
  }
  return spawnSync(docker, ["compose", "version"]).status === 0 ? false : "docker has no compose plugin";
}

describe("docker-compose.yml", () => {
  it("runs Redis nodes that lose no acknowledged write", () => {
    const config = readFileSync(join(root, "deploy/redis/redis.conf"), "utf8");
    for (const line of [
      "appendonly yes",
      "appendfsync always",
      'save ""',
      "maxmemory-policy noeviction",
      "min-replicas-to-write 1",
      "min-replicas-max-lag 2",
      "repl-ping-replica-period 1",
    ]) {
      assert.match(config, new RegExp(`^${line}$`, "m"));
    }
    for (const name of NODES) {
      const { command, environment, user } = services[name];
      assert.deepEqual(command, ["sh", "/etc/inventory/start-node.sh"]);
      assert.deepEqual([environment["NODE"], user], [name, "redis"]);
      assert.equal(environment["SENTINELS"], SENTINELS.map((sentinel) => `${sentinel}:26379`).join(" "));
    }
    for (const name of SENTINELS) {
      assert.deepEqual(services[name].environment, { SENTINEL: name, PRIMARY: "redis-1" });
      assert.deepEqual(services[name].command, ["sh", "/etc/inventory/start-sentinel.sh"]);
    }
    assert.equal(new Set([...NODES, ...SENTINELS].flatMap((name) => services[name].volumes)).size, 7);
  });

  it("runs a Redis of a version that is tested", () => {
    for (const name of [...NODES, ...SENTINELS]) assert.equal(services[name].image, "redis:8.2");
    assert.ok(REDIS_SERVERS.includes("redis-8.2"));
  });

  it("gives the nodes of the Redis group addresses that need no name server", () => {
    const hosts = [...NODES, ...SENTINELS].map((name) => {
      const { networks } = services[name];
      assert.ok(!Array.isArray(networks), name);
      return `${name}:${networks["inside"]?.ipv4_address}`;
    });
    assert.equal(new Set(hosts.map((host) => host.split(":").slice(1).join())).size, hosts.length);
    for (const name of [...NODES, ...SENTINELS, ...SERVERS, "operator"] as const) {
      assert.deepEqual(services[name].extra_hosts, hosts, name);
    }
    for (const name of SERVERS) {
      assert.deepEqual(services[name].dns_opt, ["timeout:1", "attempts:2"], `lookups of ${name} are bounded`);
    }
    const [{ subnet, ip_range }] = networks.inside.ipam.config;
    assert.match(subnet, /\.0\/24$/);
    assert.match(ip_range, /\.128\/25$/, "other addresses are above the fixed ones");
  });

  it("bounds the log of each container", () => {
    for (const [name, { logging }] of Object.entries(services)) assert.ok(logging, name);
  });

  it("starts each service after its dependencies, each of which has a health check", () => {
    for (const name of SERVERS) {
      assert.deepEqual(services[name].depends_on, {
        ...Object.fromEntries(NODES.map((node) => [node, { condition: "service_started", required: false }])),
        topics: { condition: "service_completed_successfully", required: true },
      });
      assert.equal(services.edge.depends_on[name]?.condition, "service_healthy");
    }
    assert.deepEqual(services.topics.depends_on, {
      kafka: { condition: "service_healthy", required: true },
    });
    for (const name of [...NODES, ...SENTINELS, "kafka"] as const)
      assert.ok(services[name].healthcheck, name);
    assert.ok(!services.kafka.healthcheck?.test.join(" ").includes(".sh"), "no JVM for each check");
    // That of the servers is in the image.
    assert.match(readFileSync(join(root, "Dockerfile"), "utf8"), /^HEALTHCHECK .*--start-interval=/m);
  });

  it("declares the volumes of data and the secret of tokens", () => {
    for (const { volumes: mounts, secrets: names } of Object.values(services)) {
      for (const mount of mounts) {
        const [source = ""] = mount.split(":");
        assert.ok(source.startsWith("./") ? existsSync(join(root, source)) : source in volumes, source);
      }
      for (const name of names) assert.ok(name in secrets, name);
    }
    assert.ok(services.kafka.volumes.length > 0);
    assert.match(readFileSync(join(root, ".gitignore"), "utf8"), /^auth-tokens$/m);
  });

  it("publishes ports of the edge only, and only the edge can reach the outside", () => {
    for (const [name, { ports, networks }] of Object.entries(services)) {
      assert.equal(ports.length > 0, name === "edge", name);
      const names = Array.isArray(networks) ? networks : Object.keys(networks);
      assert.deepEqual(names, name === "edge" ? ["outside", "inside"] : ["inside"], name);
    }
  });

  it("limits the resources of each service; the servers have no capability and no writable file system", () => {
    for (const name of [...SERVERS, "edge"] as const) {
      const { read_only, cap_drop, security_opt, pids_limit } = services[name];
      assert.deepEqual([read_only, cap_drop], [true, ["ALL"]], name);
      assert.deepEqual(security_opt, ["no-new-privileges:true"], name);
      assert.ok(pids_limit);
    }
    assert.deepEqual([inventory.cap_add, services.edge.cap_add], [[], ["NET_BIND_SERVICE"]]);
    for (const [name, { restart }] of Object.entries(services)) {
      assert.equal(restart, ["topics", "operator"].includes(name) ? "no" : "unless-stopped", name);
    }
  });

  it("starts identical servers with settings that they accept", () => {
    for (const name of SERVERS) assert.deepEqual(services[name], inventory, name);
    const environment = Object.fromEntries(
      Object.entries(inventory.environment).map(([name, value]) => [name, String(value)]),
    );
    const known = readFileSync(join(root, "server/config.ts"), "utf8");
    for (const name of Object.keys(environment)) {
      assert.match(known, new RegExp(`^  ${name}: `, "m"), `${name} is a setting`);
    }
    assert.equal(environment["AUTH_TOKENS_FILE"], "/run/secrets/auth-tokens");
    assert.deepEqual(inventory.secrets, ["auth-tokens"]);
    // The file is in the container alone.
    const config = readConfig({ ...environment, AUTH_TOKENS_FILE: "", AUTH_TOKENS: TOKENS });
    const sentinels = SENTINELS.map((host) => ({ host, port: 26_379 }));
    assert.deepEqual(config.redis?.sentinel?.addresses, sentinels);
    assert.equal(config.redis?.sentinel?.masterName, "inventory");
    assert.equal(config.redis?.acks, 1);
    assert.deepEqual(config.kafka?.brokers, ["kafka:9092"]);
    assert.equal(config.demo, false);
    assert.ok(
      config.trustedProxies.length > 0,
      "rate limits apply to the addresses of clients, not to that of the edge",
    );
    const drainMs = config.drainWaitMs + config.drainMsMax;
    assert.ok(
      Number.parseInt(inventory.stop_grace_period ?? "0", 10) * 1_000 > drainMs,
      "the drain fits into the grace period",
    );
  });

  it("sets the variables of the edge's configuration; writes go to Orders' server", () => {
    const { environment, volumes: mounts } = services.edge;
    const [source = ""] = (mounts.find((mount) => mount.includes("Caddyfile")) ?? "").split(":");
    const caddyfile = readFileSync(join(root, source), "utf8");
    for (const name of Object.keys(environment)) {
      assert.ok(caddyfile.includes(`{$${name}:`), `${name} is read, and has a default`);
    }
    const upstreams = (names: readonly string[]): string =>
      names.map((name) => `${name}:${inventory.environment["PORT"]}`).join(" ");
    assert.equal(environment["EDGE_UPSTREAMS"], upstreams(OF_SHOPPERS));
    assert.equal(environment["EDGE_WRITE_UPSTREAMS"], upstreams(["inventory-orders"]));
    const [, intervalSeconds] = /health_interval \{\$EDGE_HEALTH_INTERVAL:(\d+)s\}/.exec(caddyfile) ?? [];
    const drainWaitMs = Number(inventory.environment["DRAIN_WAIT_MS"]);
    assert.ok(
      drainWaitMs >= 2_000 * Number(intervalSeconds),
      "the edge notices an unready server before it refuses connections",
    );
  });

  it("has the servers that Prometheus scrapes", () => {
    const text = readFileSync(join(root, "deploy/prometheus/prometheus.yaml"), "utf8");
    const { scrape_configs: jobs } = Scraping.parse(parse(text));
    const targets = jobs.find(({ job_name }) => job_name === "inventory")?.static_configs;
    const admin = (names: readonly string[]): string[] =>
      names.map((name) => `${name}:${inventory.environment["ADMIN_PORT"]}`);
    assert.deepEqual(targets, [
      { targets: admin(["inventory-orders"]), labels: { pool: "orders" } },
      { targets: admin(OF_SHOPPERS), labels: { pool: "shoppers" } },
    ]);
  });

  it("advertises Kafka at the address that the service uses", () => {
    const { KAFKA_ADVERTISED_LISTENERS, KAFKA_CONTROLLER_QUORUM_VOTERS } = services.kafka.environment;
    assert.match(String(KAFKA_ADVERTISED_LISTENERS), /PLAINTEXT:\/\/kafka:9092/);
    assert.match(String(KAFKA_CONTROLLER_QUORUM_VOTERS), /^1@kafka:9093$/);
    assert.equal(services.kafka.image, `apache/kafka:${kafkaVersion}`, "the Kafka that the tests run");
    assert.equal(services.topics.image, services.kafka.image);
  });

  it("creates the default topics of the service, and the dead-letter topic with room for its headers", () => {
    const script = services.topics.command?.join("\n") ?? "";
    const created = /for topic in ([^;]+);/.exec(script)?.[1]?.split(" ") ?? [];
    const deadLetters = /create (\S+) --config max\.message\.bytes=(\d+)/.exec(script);
    assert.deepEqual([...created, deadLetters?.[1]].toSorted(), Object.keys(TOPICS).sort());
    assert.equal(Number(deadLetters?.[2]), DEAD_LETTER_BYTES_MAX);
  });

  it("builds the image of this release", () => {
    const { version }: { version: string } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
    assert.equal(inventory.build?.context, ".");
    assert.match(inventory.build?.args["COMMIT"] ?? "", /^\$\{COMMIT:-/);
    assert.match(readFileSync(join(root, "Dockerfile"), "utf8"), /^ARG COMMIT=/m);
    assert.equal(inventory.image, `inventory:${version}`);
  });

  it("is accepted by docker compose", { skip: composeMissing() }, async () => {
    await run("docker", ["compose", "-f", FILE, "config", "--quiet"]);
  });
});

describe("docker-compose.cluster.yml", () => {
  const ClusterNode = Service.omit({ healthcheck: true, restart: true }).extend({
    restart: z.enum(["unless-stopped", "on-failure"]),
    healthcheck: z.looseObject({ disable: z.boolean().default(false) }),
  });
  const Changed = Service.pick({ environment: true, extra_hosts: true, depends_on: true });
  const Unused = z.strictObject({ profiles: z.tuple([z.literal("primary")]) });
  const file = z
    .looseObject({
      services: z.strictObject({
        ...Object.fromEntries(SERVERS.map((name) => [name, Changed.strict()])),
        operator: Changed.omit({ depends_on: true }).strict(),
        ...Object.fromEntries([...NODES, ...SENTINELS].map((name) => [name, Unused])),
        ...Object.fromEntries([1, 2, 3, 4, 5, 6].map((n) => [`cluster-${n}`, ClusterNode])),
        "cluster-create": ClusterNode,
      }),
      volumes: z.record(z.string(), z.null()),
    })
    .parse(parse(readFileSync(CLUSTER_FILE, "utf8"), { merge: true }));
  const nodes = [1, 2, 3, 4, 5, 6].map((n) => `cluster-${n}`);
  const all: Readonly<Record<string, unknown>> = file.services;
  const node = (name: string) => ClusterNode.parse(all[name]);
  const changed = (name: string) => Changed.parse(all[name]);
  const addresses = nodes.map((name) => `${name}:6379`);

  it("runs six nodes with data and addresses of their own", () => {
    for (const name of nodes) {
      const { image, command, environment, networks, volumes } = node(name);
      assert.deepEqual([image, command], ["redis:8.2", ["sh", "/etc/inventory/start-cluster-node.sh"]]);
      assert.equal(environment["NODE"], name);
      assert.equal(environment["NODES"], addresses.join(" "));
      assert.ok(!Array.isArray(networks));
      assert.equal(environment["ADDRESS"], networks["inside"]?.ipv4_address);
      assert.deepEqual(volumes, ["./deploy/redis:/etc/inventory:ro", `${name}-data:/data`]);
      assert.ok(`${name}-data` in file.volumes);
    }
    const own = nodes.map((name) => node(name).environment["ADDRESS"]);
    const others = [...NODES, ...SENTINELS].map((name) => {
      const { networks } = services[name];
      return Array.isArray(networks) ? "" : networks["inside"]?.ipv4_address;
    });
    assert.equal(new Set([...own, ...others]).size, 12);
  });

  it("creates the cluster with equal numbers of buckets", () => {
    const { command, environment, depends_on, restart, healthcheck } = node("cluster-create");
    assert.deepEqual(command, ["sh", "/etc/inventory/create-cluster.sh"]);
    assert.equal(environment["NODES"], addresses.join(" "));
    assert.equal(
      environment["SLOTS"],
      planRanges(64, 3)
        .map(({ first, last }) => `${first}-${last}`)
        .join(" "),
    );
    assert.deepEqual(Object.keys(depends_on), nodes);
    assert.deepEqual([restart, healthcheck.disable], ["on-failure", true]);
  });

  it("limits the nodes as the services of docker-compose.yml are limited", () => {
    const { read_only, cap_drop, security_opt, pids_limit, logging, user, cpus } = services["redis-1"];
    for (const name of [...nodes, "cluster-create"]) {
      const own = node(name);
      assert.deepEqual(
        [own.read_only, own.cap_drop, own.security_opt, own.pids_limit, own.logging, own.user, own.cpus],
        [read_only, cap_drop, security_opt, pids_limit, logging, user, cpus],
        name,
      );
      assert.deepEqual(own.ports, []);
    }
  });

  it("gives the servers settings that they accept, with the nodes instead of the Sentinels", () => {
    for (const name of SERVERS) {
      const { environment, extra_hosts, depends_on } = changed(name);
      assert.deepEqual(
        extra_hosts,
        nodes.map((each) => `${each}:${node(each).environment["ADDRESS"]}`),
      );
      assert.deepEqual(Object.keys(depends_on), [...nodes, "cluster-create", "topics"]);
      assert.deepEqual(environment, { REDIS_SENTINELS: "", REDIS_CLUSTER: addresses.join(",") });
      const all = { ...inventory.environment, ...environment, AUTH_TOKENS_FILE: "", AUTH_TOKENS: TOKENS };
      const { redis, buckets } = readConfig(
        Object.fromEntries(Object.entries(all).map(([key, value]) => [key, String(value)])),
      );
      assert.deepEqual(
        redis?.cluster?.addresses.map(({ host, port }) => `${host}:${port}`),
        addresses,
      );
      assert.deepEqual([redis?.acks, buckets], [1, 64]);
    }
    assert.equal(changed("operator").environment["REDIS_CLUSTER"], addresses.join(","));
  });

  it("is accepted by docker compose", { skip: composeMissing() }, async () => {
    await run("docker", ["compose", "-f", FILE, "-f", CLUSTER_FILE, "config", "--quiet"]);
  });
});
