import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { parse } from "yaml";
import { z } from "zod";
import { readConfig } from "../server/config.ts";
import { planRanges } from "../tools/cluster-plan/slots.ts";
import { readDockerfile } from "../tools/dockerfile.ts";
import { startTestApp, type TestApp } from "./support/app.ts";
import {
  Autoscaler,
  build,
  buildWith,
  ConfigMap,
  Deployment,
  kustomize,
  manifests,
  NetworkPolicy,
  one,
  Resource,
  Selecting,
  Service,
} from "./support/manifests.ts";

// Tests of the manifests without a cluster. `npm run kubernetes:check` decodes them with Kubernetes' own types.

const root = join(import.meta.dirname, "..");
const OVERLAYS = [
  "overlays/dev",
  "overlays/production",
  "overlays/production-with-redis",
  "overlays/cluster",
] as const;
/** What an operator adds to a copy of an overlay. */
const MONITORING = "components/monitoring";
/** The deployments of each overlay. */
const POOLS: readonly { readonly overlay: (typeof OVERLAYS)[number]; readonly pool?: string }[] = [
  { overlay: "overlays/dev" },
  { overlay: "overlays/production", pool: "shoppers" },
  { overlay: "overlays/production", pool: "orders" },
  { overlay: "overlays/production-with-redis", pool: "shoppers" },
  { overlay: "overlays/production-with-redis", pool: "orders" },
  { overlay: "overlays/cluster", pool: "shoppers" },
  { overlay: "overlays/cluster", pool: "orders" },
];
const POOL = "app.kubernetes.io/component";

const kustomizeMissing = kustomize === undefined && "neither kustomize nor kubectl is installed";

const hasPool = (pool: string | undefined, { metadata }: Resource): boolean =>
  [undefined, pool].includes(metadata.labels[POOL]);

const isSelected = (selector: Record<string, string>, labels: Record<string, string>): boolean =>
  Object.entries(selector).every(([key, value]) => labels[key] === value);

/** A peer of a network policy: pods with a label, in any namespace. */
const labelled = (key: string, value: string) => ({
  podSelector: { matchExpressions: [{ key, operator: "In", values: [value] }] },
});
const inNamespace = (name: string) => ({
  namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": name } },
});

/** The environment of the container's process. */
function environmentOf(resources: readonly Resource[]): Record<string, string> {
  const [container] = one(resources, "Deployment", Deployment).spec.template.spec.containers;
  const { data, metadata } = one(resources, "ConfigMap", ConfigMap);
  assert.deepEqual(container.envFrom, [{ configMapRef: { name: metadata.name } }]);
  const own = container.env.map(({ name, value, valueFrom }) => {
    assert.ok((value === undefined) !== (valueFrom === undefined), `${name} has one source`);
    return [name, value ?? SECRETS[`${valueFrom?.secretKeyRef.name}/${valueFrom?.secretKeyRef.key}`] ?? ""];
  });
  return { ...data, ...Object.fromEntries(own) };
}

/** The Secrets that docs/deployment.md asks for. */
const SECRETS: Readonly<Record<string, string>> = {
  "inventory-redis/url": "rediss://:secret@redis.example:6380",
  "inventory-kafka/username": "inventory",
  "inventory-kafka/password": "secret",
};

const TOKENS = `orders:orders:${"0".repeat(64)}`;

/** The user of the image: `1000:1000`. */
const USER =
  readDockerfile(readFileSync(join(root, "Dockerfile"), "utf8"))
    .at(-1)
    ?.instructions.findLast(({ name }) => name === "USER")?.text ?? "";

/** The files and folders that a folder's kustomization refers to. */
function namedBy(part: string): string[] {
  const { resources, components, patches, configMapGenerator } = z
    .looseObject({
      resources: z.array(z.string()).default([]),
      components: z.array(z.string()).default([]),
      patches: z.array(z.looseObject({ path: z.string() })).default([]),
      configMapGenerator: z.array(z.looseObject({ envs: z.array(z.string()).default([]) })).default([]),
    })
    .parse(parse(readFileSync(join(part, "kustomization.yaml"), "utf8")));
  const own = [...patches.map(({ path }) => path), ...configMapGenerator.flatMap(({ envs }) => envs)];
  return [...resources, ...components, ...own].map((each) => join(part, each));
}

const milliseconds = (environment: Record<string, string>, name: string): number => Number(environment[name]);

describe("the manifests", () => {
  it("refer to files that exist, and to every file", () => {
    const files = readdirSync(manifests, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map(({ parentPath, name }) => join(parentPath, name));
    const parts = files.filter((file) => basename(file) === "kustomization.yaml").map(dirname);
    const named = new Set(parts.flatMap(namedBy));
    for (const each of named) assert.ok(existsSync(each), each);
    const left = [...parts, ...files.filter((file) => basename(file) !== "kustomization.yaml")].filter(
      (each) => !named.has(each),
    );
    assert.deepEqual(
      left.toSorted(),
      // Those with Redis refer to the production overlay.
      ["overlays/cluster", "overlays/dev", "overlays/production-with-redis", MONITORING]
        .map((part) => join(manifests, part))
        .toSorted(),
    );
  });

  it("contain no secret", () => {
    const files = readdirSync(manifests, { recursive: true, encoding: "utf8" }).filter((file) =>
      /\.\w+$/.test(file),
    );
    assert.ok(files.length > 10);
    for (const file of files) {
      const text = readFileSync(join(manifests, file), "utf8");
      assert.doesNotMatch(text, /^kind: Secret$|secretGenerator|PASSWORD=|[0-9a-f]{64}/m, file);
    }
  });
});

for (const { overlay, pool } of POOLS) {
  describe(`${overlay} ${pool ?? "alone"}`, { skip: kustomizeMissing }, () => {
    /** The resources of this pool and those of all pools. */
    let resources: Resource[];
    let others: Resource[];
    let app: TestApp;

    before(async () => {
      const all = build(overlay);
      resources = all.filter((each) => hasPool(pool, each));
      others = all.filter((each) => !hasPool(pool, each));
      app = await startTestApp({ ADMIN_PORT: "0" });
    });
    after(() => app?.stop());

    it("is in one namespace", () => {
      for (const { kind, metadata } of resources) {
        if (kind !== "Namespace") assert.equal(metadata.namespace, "inventory", `${kind} ${metadata.name}`);
      }
    });

    it("sets known variables to values that the service accepts", () => {
      const environment = environmentOf(resources);
      const known = readFileSync(join(root, "server/config.ts"), "utf8");
      for (const name of Object.keys(environment)) {
        assert.match(known, new RegExp(`^  ${name}: `, "m"), `${name} is a setting`);
      }
      // The file of tokens exists only in the container.
      const tokens = environment["AUTH_TOKENS_FILE"] === "" ? {} : { AUTH_TOKENS: TOKENS };
      const config = readConfig({ ...environment, AUTH_TOKENS_FILE: "", ...tokens });
      assert.equal(config.demo, false);
      assert.notEqual(config.redis, undefined);
      const [container] = one(resources, "Deployment", Deployment).spec.template.spec.containers;
      assert.deepEqual(
        container.ports.map(({ name, containerPort }) => [name, containerPort]),
        [
          ["grpc", config.port],
          ["admin", config.admin?.port],
        ],
      );
      assert.equal(container.volumeMounts.length, environment["AUTH_TOKENS_FILE"] === "" ? 0 : 1);
      for (const { mountPath } of container.volumeMounts) {
        assert.ok(environment["AUTH_TOKENS_FILE"]?.startsWith(`${mountPath}/`));
      }
    });

    it("selects its own pods only, in every selector", () => {
      const { spec } = one(resources, "Deployment", Deployment);
      const own = spec.template.metadata.labels;
      const foreign = others
        .filter(({ kind }) => kind === "Deployment")
        .map((each) => Deployment.parse(each).spec.template.metadata.labels);
      assert.equal(foreign.length, pool === undefined ? 0 : 1);
      const isOwn = (selector: Record<string, string>): void => {
        assert.ok(Object.keys(selector).length > 0);
        assert.ok(isSelected(selector, own), JSON.stringify(selector));
        for (const labels of foreign) assert.ok(!isSelected(selector, labels), JSON.stringify(selector));
      };
      isOwn(spec.selector.matchLabels);
      isOwn(one(resources, "Service", Service).spec.selector);
      isOwn(one(resources, "PodDisruptionBudget", Selecting).spec.selector.matchLabels);
      isOwn(one(resources, "NetworkPolicy", NetworkPolicy).spec.podSelector.matchLabels);
      for (const constraint of spec.template.spec.topologySpreadConstraints) {
        isOwn(constraint.labelSelector.matchLabels);
      }
      if (resources.some(({ kind }) => kind === "PodMonitor")) {
        const { matchLabels } = one(resources, "PodMonitor", Selecting).spec.selector;
        for (const labels of [own, ...foreign]) assert.ok(isSelected(matchLabels, labels), "one for all");
      }
    });

    it("refers to ports that the container has", () => {
      const [container] = one(resources, "Deployment", Deployment).spec.template.spec.containers;
      const names = container.ports.map(({ name }) => name);
      const used = [
        ...one(resources, "Service", Service).spec.ports.map(({ targetPort }) => targetPort),
        ...one(resources, "NetworkPolicy", NetworkPolicy).spec.ingress.flatMap(({ ports }) =>
          ports.map(({ port }) => port),
        ),
        ...[container.startupProbe, container.readinessProbe, container.livenessProbe].map(
          ({ httpGet }) => httpGet.port,
        ),
      ];
      for (const port of used) assert.ok(names.includes(port), port);
      assert.deepEqual(
        one(resources, "Service", Service).spec.ports.map(({ appProtocol }) => appProtocol),
        ["kubernetes.io/h2c"],
      );
    });

    it("probes paths that exist; liveness does not depend on Redis", async () => {
      const [container] = one(resources, "Deployment", Deployment).spec.template.spec.containers;
      const { startupProbe, readinessProbe, livenessProbe } = container;
      for (const { httpGet } of [startupProbe, readinessProbe, livenessProbe]) {
        assert.equal(httpGet.port, "admin");
        assert.equal((await fetch(`${app.adminUrl}${httpGet.path}`)).status, 200, httpGet.path);
      }
      const isOrders = one(resources, "Deployment", Deployment).metadata.name.endsWith("-orders");
      assert.equal(readinessProbe.httpGet.path, isOrders ? "/readyz/writes" : "/readyz/reads");
      assert.equal(livenessProbe.httpGet.path, "/healthz");
    });

    it("has a grace period longer than the drain", () => {
      const environment = environmentOf(resources);
      const waitMs = milliseconds(environment, "DRAIN_WAIT_MS");
      const drainMs = waitMs + milliseconds(environment, "DRAIN_DEADLINE_MS");
      const { spec } = one(resources, "Deployment", Deployment).spec.template;
      assert.ok(spec.terminationGracePeriodSeconds * 1_000 >= drainMs + 5_000);
      const { periodSeconds, failureThreshold } = spec.containers[0].readinessProbe;
      assert.ok(
        waitMs > 2 * 1_000 * periodSeconds * failureThreshold,
        "the probe fails before the drain begins",
      );
    });

    it("runs as the image's user, without capabilities, on a read-only file system", () => {
      const { spec } = one(resources, "Deployment", Deployment).spec.template;
      const [uid, gid] = USER.split(":").map(Number);
      assert.deepEqual(spec.securityContext, {
        runAsNonRoot: true,
        runAsUser: uid,
        runAsGroup: gid,
        fsGroup: gid,
        seccompProfile: { type: "RuntimeDefault" },
      });
      assert.deepEqual(spec.containers[0].securityContext, {
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ["ALL"] },
      });
      assert.equal(spec["automountServiceAccountToken"], false);
    });

    it("runs this release, with requests and limits", () => {
      const [container] = one(resources, "Deployment", Deployment).spec.template.spec.containers;
      const { version } = z
        .looseObject({ version: z.string() })
        .parse(parse(readFileSync(join(root, "package.json"), "utf8")));
      assert.equal(container.image, `registry.example/inventory:${version}`);
      assert.ok(container.resources.requests["cpu"] && container.resources.requests["memory"]);
      assert.ok(container.resources.limits["memory"]);
    });

    it("keeps a pod available while a node is drained", () => {
      const { spec } = one(resources, "PodDisruptionBudget", Selecting);
      const { replicas } = one(resources, "Deployment", Deployment).spec;
      const hasAutoscaler = resources.some(({ kind }) => kind === "HorizontalPodAutoscaler");
      assert.equal(
        replicas === undefined,
        hasAutoscaler,
        "either the deployment or the autoscaler sets the replicas",
      );
      const least = hasAutoscaler
        ? one(resources, "HorizontalPodAutoscaler", Autoscaler).spec.minReplicas
        : replicas;
      assert.ok(Number(spec["maxUnavailable"]) < Number(least));
      assert.ok(Number(least) >= 2);
    });

    it("admits its clients and the monitoring, and allows the connections that the service needs", () => {
      const { spec } = one(resources, "NetworkPolicy", NetworkPolicy);
      assert.deepEqual(spec.policyTypes.toSorted(), ["Egress", "Ingress"]);
      const anywhere = { namespaceSelector: {} };
      const callers =
        pool === "orders"
          ? [{ ...anywhere, ...labelled("inventory-writer", "true") }]
          : [inNamespace("edge"), { ...anywhere, ...labelled("inventory-client", "true") }];
      assert.deepEqual(spec.ingress, [
        { from: callers, ports: [{ port: "grpc" }] },
        { from: [inNamespace("monitoring")], ports: [{ port: "admin" }] },
      ]);
      assert.deepEqual(
        spec.egress.find(({ ports }) => ports.some(({ port }) => port === 53))?.["to"],
        [{ ...inNamespace("kube-system"), ...labelled("k8s-app", "kube-dns") }],
        "DNS queries go to the cluster's DNS only",
      );
      const open = spec.egress.flatMap(({ ports }) => ports.map(({ port }) => port));
      const config = readConfig({ ...environmentOf(resources), AUTH_TOKENS_FILE: "", AUTH: "off" });
      const needed = [
        53,
        ...(config.redis?.sentinel?.addresses.map(({ port }) => port) ?? []),
        ...(config.redis?.cluster?.addresses.map(({ port }) => port) ?? []),
        Number(new URL(config.redis?.url ?? "redis://redis:6379").port),
        ...(config.kafka?.brokers ?? []).map((broker) => Number(broker.split(":")[1])),
      ];
      for (const port of needed) assert.ok(open.includes(port), `port ${port}`);
    });
  });
}

describe("overlays/production", { skip: kustomizeMissing }, () => {
  const pools = POOLS.filter(({ overlay }) => overlay === "overlays/production");

  for (const { overlay, pool } of pools) {
    it(`scales the deployment for ${pool}, and reads the credentials of Kafka and Redis from Secrets`, () => {
      const resources = build(overlay).filter((each) => hasPool(pool, each));
      const { spec } = one(resources, "HorizontalPodAutoscaler", Autoscaler);
      const { apiVersion, kind, metadata } = one(resources, "Deployment", Deployment);
      assert.deepEqual(spec.scaleTargetRef, { apiVersion, kind, name: metadata.name });
      assert.ok(spec.minReplicas < spec.maxReplicas);
      const config = readConfig({ ...environmentOf(resources), AUTH_TOKENS_FILE: "", AUTH_TOKENS: TOKENS });
      assert.deepEqual([config.kafka?.ssl, config.kafka?.sasl?.username], [true, "inventory"]);
      assert.equal(config.redis?.url, SECRETS["inventory-redis/url"]);
    });
  }

  it("has pools that differ only in their clients, their size and their readiness", () => {
    const [shoppers, orders] = pools.map(({ overlay, pool }) => {
      const resources = build(overlay).filter((each) => hasPool(pool, each));
      const text = JSON.stringify(one(resources, "Deployment", Deployment));
      return text
        .replaceAll("inventory-orders", "inventory")
        .replaceAll('"orders"', '"shoppers"')
        .replace("/readyz/writes", "/readyz/reads");
    });
    assert.equal(shoppers, orders);
  });

  it("labels the metrics of each pool", () => {
    const { spec } = one(buildWith("overlays/production", MONITORING), "PodMonitor", Selecting);
    assert.match(
      JSON.stringify(spec),
      new RegExp(`_pod_label_${POOL.replaceAll(/\W/g, "_")}"\\],"targetLabel":"pool"`),
    );
  });

  it("has a Service for each pool", () => {
    const services = build("overlays/production").filter(({ kind }) => kind === "Service");
    assert.deepEqual(
      services.map(({ metadata }) => [metadata.name, metadata.labels[POOL]]),
      [
        ["inventory", "shoppers"],
        ["inventory-orders", "orders"],
      ],
    );
  });
});

describe("overlays/production-with-redis", { skip: kustomizeMissing }, () => {
  const resources = kustomize === undefined ? [] : build("overlays/production-with-redis");
  const Stateful = Resource.extend({
    spec: z.looseObject({
      serviceName: z.string(),
      replicas: z.number(),
      template: z.looseObject({
        spec: z.looseObject({
          containers: z.tuple([
            z.looseObject({
              image: z.string(),
              command: z.array(z.string()),
              env: z.array(z.looseObject({ name: z.string(), value: z.string().optional() })),
            }),
          ]),
        }),
      }),
    }),
  });
  const workload = (name: string) => one(resources, "StatefulSet", Stateful, name);
  const settings = (name: string): Record<string, string> =>
    Object.fromEntries(
      workload(name).spec.template.spec.containers[0].env.map(({ name: key, value }) => [key, value ?? ""]),
    );
  const names = (set: string): string[] => [0, 1, 2].map((index) => `${set}-${index}.${set}`);

  it("has three nodes and three Sentinels, under the names that the servers and each other use", () => {
    for (const set of ["redis", "sentinel"]) {
      const { spec } = workload(set);
      assert.deepEqual([spec.replicas, spec.serviceName], [3, set]);
      const service = one(resources, "Service", Resource, set);
      assert.match(JSON.stringify(service), /"clusterIP":"None".*"publishNotReadyAddresses":true/);
      one(resources, "PodDisruptionBudget", Resource, set);
    }
    assert.equal(settings("redis")["NODE"], "$(POD_NAME).redis");
    assert.equal(settings("sentinel")["SENTINEL"], "$(POD_NAME).sentinel");
    assert.equal(settings("sentinel")["PRIMARY"], names("redis")[0]);
    const sentinels = names("sentinel").map((name) => `${name}:26379`);
    assert.equal(settings("redis")["SENTINELS"], sentinels.join(" "));
    for (const pool of ["shoppers", "orders"]) {
      const environment = environmentOf(resources.filter((each) => hasPool(pool, each)));
      assert.equal(environment["REDIS_SENTINELS"], sentinels.join(","));
      assert.equal(environment["REDIS_ACKS"], "1");
    }
  });

  it("runs the image and the scripts of docker-compose.yml", () => {
    const compose = readFileSync(join(root, "docker-compose.yml"), "utf8");
    for (const set of ["redis", "sentinel"]) {
      const [{ image, command }] = workload(set).spec.template.spec.containers;
      assert.match(compose, new RegExp(`image: ${image}$`, "m"));
      assert.ok(compose.includes(JSON.stringify(command).replaceAll(",", ", ")), command.join(" "));
    }
    const { data } = one(resources, "ConfigMap", ConfigMap, "redis");
    for (const [file, text] of Object.entries(data)) {
      assert.equal(text, readFileSync(join(root, "deploy/redis", file), "utf8"), file);
    }
  });
});

describe("overlays/dev", { skip: kustomizeMissing }, () => {
  it("runs a Redis that loses no acknowledged write, at the address that the service uses", () => {
    const resources = build("overlays/dev");
    const redis = one(resources, "StatefulSet", Resource, "redis");
    const text = JSON.stringify(redis);
    assert.match(
      text,
      /"--appendonly","yes","--appendfsync","always","--save","","--maxmemory","256mb","--maxmemory-policy","noeviction"/,
    );
    assert.equal(new URL(environmentOf(resources)["REDIS_URL"] ?? "").hostname, redis.metadata.name);
  });
});

describe("overlays/cluster", { skip: kustomizeMissing }, () => {
  const resources = kustomize === undefined ? [] : build("overlays/cluster");
  const RedisContainer = z.looseObject({
    image: z.string(),
    command: z.array(z.string()),
    envFrom: z.tuple([z.strictObject({ configMapRef: z.strictObject({ name: z.string() }) })]),
    ports: z.array(z.strictObject({ name: z.string(), containerPort: z.number() })).default([]),
  });
  const Nodes = Resource.extend({
    spec: z.looseObject({
      serviceName: z.string(),
      replicas: z.number(),
      updateStrategy: z.strictObject({ type: z.string() }),
      selector: z.strictObject({ matchLabels: z.record(z.string(), z.string()) }),
      template: z.looseObject({
        metadata: z.looseObject({ labels: z.record(z.string(), z.string()) }),
        spec: z.looseObject({ containers: z.array(RedisContainer), affinity: z.looseObject({}) }),
      }),
    }),
  });
  const Job = Resource.extend({
    spec: z.looseObject({
      template: z.looseObject({ spec: z.looseObject({ containers: z.tuple([RedisContainer]) }) }),
    }),
  });
  const ZONES = ["a", "b", "c"] as const;
  const zones = () => ZONES.map((zone) => one(resources, "StatefulSet", Nodes, `redis-cluster-${zone}`));
  const settings = () => one(resources, "ConfigMap", ConfigMap, "redis-cluster-").data;
  const node = (zone: string, index: number): string => `redis-cluster-${zone}-${index}.redis-cluster:6379`;

  it("has two nodes in each zone, each on a machine of its own", () => {
    for (const [index, { spec }] of zones().entries()) {
      assert.deepEqual([spec.replicas, spec.serviceName], [2, "redis-cluster"]);
      const { labels } = spec.template.metadata;
      for (const [other, { spec: foreign }] of zones().entries()) {
        assert.equal(isSelected(foreign.selector.matchLabels, labels), other === index);
      }
      const affinity = JSON.stringify(spec.template.spec.affinity);
      assert.ok(affinity.includes(`"operator":"In","values":["zone-${ZONES[index]}"]`), affinity);
      assert.match(affinity, /"values":\["redis-cluster"\]\}\]\},"topologyKey":"kubernetes.io\/hostname"/);
    }
    const service = one(resources, "Service", Service, "redis-cluster");
    assert.match(JSON.stringify(service), /"clusterIP":"None".*"publishNotReadyAddresses":true/);
    const budget = one(resources, "PodDisruptionBudget", Selecting, "redis-cluster");
    assert.equal(budget.spec["maxUnavailable"], 1);
    for (const { spec } of zones()) {
      for (const selector of [service.spec.selector, budget.spec.selector.matchLabels]) {
        assert.ok(isSelected(selector, spec.template.metadata.labels));
      }
      // Each set would replace a pod at the same time.
      assert.equal(spec.updateStrategy.type, "OnDelete");
    }
  });

  it("has the primaries in three zones, and each replica in another zone than its primary", () => {
    const nodes = (settings()["NODES"] ?? "").split(" ");
    const all = [0, 1].flatMap((index) => ZONES.map((zone) => node(zone, index)));
    assert.deepEqual(nodes.toSorted(), all.toSorted());
    const zoneOf = (name = ""): string | undefined => /^redis-cluster-(\w)-/.exec(name)?.[1];
    assert.equal(new Set(nodes.slice(0, 3).map(zoneOf)).size, 3);
    // create-cluster.sh takes the replicas in the order of the primaries.
    for (const index of [0, 1, 2]) assert.notEqual(zoneOf(nodes[index]), zoneOf(nodes[index + 3]));
  });

  it("creates the cluster with equal numbers of buckets", () => {
    const ranges = planRanges(64, 3).map(({ first, last }) => `${first}-${last}`);
    assert.equal(settings()["SLOTS"], ranges.join(" "));
    const [container] = one(resources, "Job", Job, "redis-cluster-create").spec.template.spec.containers;
    assert.deepEqual(container.command, ["sh", "/etc/inventory/create-cluster.sh"]);
  });

  it("runs the image and the scripts of docker-compose.cluster.yml, with the same list of nodes in all", () => {
    const { metadata } = one(resources, "ConfigMap", ConfigMap, "redis-cluster-");
    const compose = readFileSync(join(root, "docker-compose.cluster.yml"), "utf8");
    const job = one(resources, "Job", Job, "redis-cluster-create").spec.template.spec.containers;
    const containers = [...zones().flatMap(({ spec }) => spec.template.spec.containers), ...job];
    assert.equal(containers.length, 7);
    const scripts = resources.filter(
      ({ kind, metadata }) => kind === "ConfigMap" && !metadata.name.startsWith("redis-cluster-"),
    );
    const { data } = one(scripts, "ConfigMap", ConfigMap, "redis-");
    for (const { image, command, envFrom } of containers) {
      assert.match(compose, new RegExp(`image: ${image}$`, "m"));
      const [, script = ""] = command;
      assert.equal(
        data[basename(script)],
        readFileSync(join(root, "deploy/redis", basename(script)), "utf8"),
      );
      assert.deepEqual(envFrom, [{ configMapRef: { name: metadata.name } }]);
    }
  });

  it("admits the service and the job to the nodes, and only the nodes to the cluster bus", () => {
    const { spec } = one(resources, "NetworkPolicy", Resource, "redis-cluster");
    const from = (...names: readonly string[]) => [
      {
        podSelector: {
          matchExpressions: [{ key: "app.kubernetes.io/name", operator: "In", values: names }],
        },
      },
    ];
    assert.deepEqual(Object(spec).ingress, [
      { from: from("inventory", "redis-cluster", "redis-cluster-create"), ports: [{ port: "redis" }] },
      { from: from("redis-cluster"), ports: [{ port: "bus" }] },
    ]);
    const [redis] = zones()[0]?.spec.template.spec.containers ?? [];
    assert.deepEqual(redis?.ports, [
      { name: "redis", containerPort: 6_379 },
      { name: "bus", containerPort: 16_379 },
    ]);
  });

  it("gives the servers a node of each zone, and acknowledgements", () => {
    for (const pool of ["shoppers", "orders"]) {
      const environment = environmentOf(resources.filter((each) => hasPool(pool, each)));
      assert.equal(environment["REDIS_CLUSTER"], ZONES.map((zone) => node(zone, 0)).join(","));
      assert.equal(environment["REDIS_ACKS"], "1");
      assert.equal(environment["REDIS_URL"], undefined);
    }
  });
});
