import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { parse, parseAllDocuments } from "yaml";
import { z } from "zod";
import { readConfig } from "../server/config.ts";
import { readDockerfile } from "../tools/dockerfile.ts";
import { startTestApp, type TestApp } from "./support/app.ts";
import { findProgram } from "./support/programs.ts";

// What can be said of the manifests without a cluster; `npm run kubernetes:check` decodes them with Kubernetes' own types.

const root = join(import.meta.dirname, "..");
const folder = join(root, "deploy/kubernetes");
const OVERLAYS = ["overlays/dev", "overlays/production"] as const;

const Labels = z.record(z.string(), z.string());
const Resource = z.looseObject({
  apiVersion: z.string(),
  kind: z.string(),
  metadata: z.looseObject({ name: z.string(), namespace: z.string().optional() }),
});
type Resource = z.infer<typeof Resource>;

const Probe = z.strictObject({
  httpGet: z.strictObject({ path: z.string(), port: z.string() }),
  periodSeconds: z.number(),
  timeoutSeconds: z.number().default(1),
  failureThreshold: z.number().default(3),
});
const EnvironmentVariable = z.strictObject({
  name: z.string(),
  value: z.string().optional(),
  valueFrom: z
    .strictObject({ secretKeyRef: z.strictObject({ name: z.string(), key: z.string() }) })
    .optional(),
});
const Container = z.looseObject({
  name: z.string(),
  image: z.string(),
  envFrom: z.array(z.strictObject({ configMapRef: z.strictObject({ name: z.string() }) })),
  env: z.array(EnvironmentVariable),
  ports: z.array(z.strictObject({ name: z.string(), containerPort: z.number() })),
  startupProbe: Probe,
  readinessProbe: Probe,
  livenessProbe: Probe,
  resources: z.strictObject({ requests: Labels, limits: Labels }),
  securityContext: z.looseObject({}),
  volumeMounts: z.array(z.looseObject({ name: z.string(), mountPath: z.string() })).default([]),
});
const Deployment = Resource.extend({
  spec: z.looseObject({
    replicas: z.number().optional(),
    selector: z.strictObject({ matchLabels: Labels }),
    template: z.strictObject({
      metadata: z.looseObject({ labels: Labels }),
      spec: z.looseObject({
        terminationGracePeriodSeconds: z.number(),
        securityContext: z.looseObject({}),
        topologySpreadConstraints: z.array(
          z.looseObject({ topologyKey: z.string(), labelSelector: z.strictObject({ matchLabels: Labels }) }),
        ),
        containers: z.tuple([Container]),
        volumes: z.array(z.looseObject({ name: z.string() })).default([]),
      }),
    }),
  }),
});
const ConfigMap = Resource.extend({ data: z.record(z.string(), z.string()) });
const Service = Resource.extend({
  spec: z.looseObject({
    selector: Labels,
    ports: z.array(
      z.looseObject({ port: z.number(), targetPort: z.string(), appProtocol: z.string().optional() }),
    ),
  }),
});
const Selecting = Resource.extend({
  spec: z.looseObject({ selector: z.strictObject({ matchLabels: Labels }) }),
});
const NetworkPolicy = Resource.extend({
  spec: z.looseObject({
    podSelector: z.strictObject({ matchLabels: Labels }),
    policyTypes: z.array(z.string()),
    ingress: z.array(
      z.looseObject({
        from: z.array(z.unknown()).min(1),
        ports: z.array(z.looseObject({ port: z.string() })),
      }),
    ),
    egress: z.array(z.looseObject({ ports: z.array(z.looseObject({ port: z.number() })) })),
  }),
});
const Autoscaler = Resource.extend({
  spec: z.looseObject({
    scaleTargetRef: z.strictObject({ apiVersion: z.string(), kind: z.string(), name: z.string() }),
    minReplicas: z.number(),
    maxReplicas: z.number(),
  }),
});

/** The program that puts an overlay together, and its arguments before the folder. */
const kustomize = findKustomize();

function findKustomize(): { path: string; args: readonly string[] } | undefined {
  const own = findProgram("kustomize");
  if (own !== undefined) return { path: own, args: ["build"] };
  const kubectl = findProgram("kubectl");
  return kubectl === undefined ? undefined : { path: kubectl, args: ["kustomize"] };
}

function build(overlay: string): Resource[] {
  const { path, args } = kustomize ?? { path: "kustomize", args: [] };
  const text = execFileSync(path, [...args, join(folder, overlay)], { encoding: "utf8" });
  return parseAllDocuments(text).map((document) => Resource.parse(document.toJS()));
}

/** The one resource of a kind. */
function one<T>(resources: readonly Resource[], kind: string, shape: z.ZodType<T>, name = "inventory"): T {
  const found = resources.filter((each) => each.kind === kind && each.metadata.name.startsWith(name));
  assert.equal(found.length, 1, `one ${kind} ${name}`);
  return shape.parse(found[0]);
}

/** What the container's process would find in its environment. */
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

/** What docs/deployment.md tells to put into Secrets. */
const SECRETS: Readonly<Record<string, string>> = {
  "inventory-redis/url": "rediss://:secret@redis.example:6380",
  "inventory-kafka/username": "inventory",
  "inventory-kafka/password": "secret",
};

const TOKENS = `orders:orders:${"0".repeat(64)}`;

/** As the image has it: `1000:1000`. */
const USER =
  readDockerfile(readFileSync(join(root, "Dockerfile"), "utf8"))
    .at(-1)
    ?.instructions.findLast(({ name }) => name === "USER")?.text ?? "";

const milliseconds = (environment: Record<string, string>, name: string): number => Number(environment[name]);

describe("the manifests", () => {
  it("name files that are there, and no file is left out", () => {
    for (const part of ["base", "components/monitoring", ...OVERLAYS]) {
      const {
        resources = [],
        patches = [],
        configMapGenerator = [],
      } = z
        .looseObject({
          resources: z.array(z.string()).optional(),
          patches: z.array(z.strictObject({ path: z.string() })).optional(),
          configMapGenerator: z.array(z.looseObject({ envs: z.array(z.string()).optional() })).optional(),
        })
        .parse(parse(readFileSync(join(folder, part, "kustomization.yaml"), "utf8")));
      const named = [
        ...resources,
        ...patches.map(({ path }) => path),
        ...configMapGenerator.flatMap(({ envs = [] }) => envs),
      ];
      for (const file of named) {
        assert.ok(existsSync(join(folder, part, file)), `${part} has ${file}`);
      }
      const files = readdirSync(join(folder, part)).filter((file) => file !== "kustomization.yaml");
      assert.deepEqual(
        files.filter((file) => !named.includes(file)),
        [],
        part,
      );
    }
  });

  it("hold no secret", () => {
    const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((file) =>
      /\.\w+$/.test(file),
    );
    assert.ok(files.length > 10);
    for (const file of files) {
      const text = readFileSync(join(folder, file), "utf8");
      assert.doesNotMatch(text, /^kind: Secret$|secretGenerator|PASSWORD=|[0-9a-f]{64}/m, file);
    }
  });
});

for (const overlay of OVERLAYS) {
  describe(overlay, { skip: kustomize === undefined && "neither kustomize nor kubectl is installed" }, () => {
    let resources: Resource[];
    let app: TestApp;

    before(async () => {
      resources = build(overlay);
      app = await startTestApp({ ADMIN_PORT: "0" });
    });
    after(() => app?.stop());

    it("is all in one namespace", () => {
      for (const { kind, metadata } of resources) {
        if (kind !== "Namespace") assert.equal(metadata.namespace, "inventory", `${kind} ${metadata.name}`);
      }
    });

    it("sets what the service knows, and in a way that it accepts", () => {
      const environment = environmentOf(resources);
      const known = readFileSync(join(root, "server/config.ts"), "utf8");
      for (const name of Object.keys(environment)) {
        assert.match(known, new RegExp(`^  ${name}: `, "m"), `${name} is a setting`);
      }
      // The file is in the container alone; what it holds is looked at by the tests of the configuration.
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

    it("selects its own pods, everywhere", () => {
      const { spec } = one(resources, "Deployment", Deployment);
      const { labels } = spec.template.metadata;
      const isOwn = (selector: Record<string, string>): void => {
        assert.ok(Object.keys(selector).length > 0);
        for (const [key, value] of Object.entries(selector)) assert.equal(labels[key], value);
      };
      isOwn(spec.selector.matchLabels);
      isOwn(one(resources, "Service", Service).spec.selector);
      isOwn(one(resources, "PodDisruptionBudget", Selecting).spec.selector.matchLabels);
      isOwn(one(resources, "NetworkPolicy", NetworkPolicy).spec.podSelector.matchLabels);
      for (const constraint of spec.template.spec.topologySpreadConstraints) {
        isOwn(constraint.labelSelector.matchLabels);
      }
      if (resources.some(({ kind }) => kind === "PodMonitor")) {
        isOwn(one(resources, "PodMonitor", Selecting).spec.selector.matchLabels);
      }
    });

    it("names ports that the container has", () => {
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

    it("probes paths that answer, liveness without looking at Redis", async () => {
      const [container] = one(resources, "Deployment", Deployment).spec.template.spec.containers;
      const { startupProbe, readinessProbe, livenessProbe } = container;
      for (const { httpGet } of [startupProbe, readinessProbe, livenessProbe]) {
        assert.equal(httpGet.port, "admin");
        assert.equal((await fetch(`${app.adminUrl}${httpGet.path}`)).status, 200, httpGet.path);
      }
      assert.equal(readinessProbe.httpGet.path, "/readyz");
      assert.equal(livenessProbe.httpGet.path, "/healthz");
    });

    it("gives the drain its time", () => {
      const environment = environmentOf(resources);
      const waitMs = milliseconds(environment, "DRAIN_WAIT_MS");
      const drainMs = waitMs + milliseconds(environment, "DRAIN_DEADLINE_MS");
      const { spec } = one(resources, "Deployment", Deployment).spec.template;
      assert.ok(spec.terminationGracePeriodSeconds * 1_000 >= drainMs + 5_000);
      const { periodSeconds, failureThreshold } = spec.containers[0].readinessProbe;
      assert.ok(waitMs > 2 * 1_000 * periodSeconds * failureThreshold, "unready is seen before the drain");
    });

    it("runs as the image's user, with no rights and no file to write", () => {
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

    it("runs a named release, within bounds", () => {
      const [container] = one(resources, "Deployment", Deployment).spec.template.spec.containers;
      const { version } = z
        .looseObject({ version: z.string() })
        .parse(parse(readFileSync(join(root, "package.json"), "utf8")));
      assert.equal(container.image, `registry.example/inventory:${version}`);
      assert.ok(container.resources.requests["cpu"] && container.resources.requests["memory"]);
      assert.ok(container.resources.limits["memory"]);
    });

    it("keeps a pod while a node is drained", () => {
      const { spec } = one(resources, "PodDisruptionBudget", Selecting);
      const { replicas } = one(resources, "Deployment", Deployment).spec;
      const hasAutoscaler = resources.some(({ kind }) => kind === "HorizontalPodAutoscaler");
      assert.equal(replicas === undefined, hasAutoscaler, "one of the two decides");
      const least = hasAutoscaler
        ? one(resources, "HorizontalPodAutoscaler", Autoscaler).spec.minReplicas
        : replicas;
      assert.ok(Number(spec["maxUnavailable"]) < Number(least));
      assert.ok(Number(least) >= 2);
    });

    it("lets in the edge and the monitoring, and out to what the service needs", () => {
      const { spec } = one(resources, "NetworkPolicy", NetworkPolicy);
      assert.deepEqual(spec.policyTypes.toSorted(), ["Egress", "Ingress"]);
      const open = spec.egress.flatMap(({ ports }) => ports.map(({ port }) => port));
      const config = readConfig({ ...environmentOf(resources), AUTH_TOKENS_FILE: "", AUTH: "off" });
      const needed = [
        53,
        Number(new URL(config.redis?.url ?? "").port),
        ...(config.kafka?.brokers ?? []).map((broker) => Number(broker.split(":")[1])),
      ];
      for (const port of needed) assert.ok(open.includes(port), `port ${port}`);
    });
  });
}

describe("overlays/production", {
  skip: kustomize === undefined && "neither kustomize nor kubectl is installed",
}, () => {
  it("scales the deployment, and reads logins of Kafka and Redis from Secrets", () => {
    const resources = build("overlays/production");
    const { spec } = one(resources, "HorizontalPodAutoscaler", Autoscaler);
    const { apiVersion, kind, metadata } = one(resources, "Deployment", Deployment);
    assert.deepEqual(spec.scaleTargetRef, { apiVersion, kind, name: metadata.name });
    assert.ok(spec.minReplicas < spec.maxReplicas);
    const config = readConfig({ ...environmentOf(resources), AUTH_TOKENS_FILE: "", AUTH_TOKENS: TOKENS });
    assert.deepEqual([config.kafka?.ssl, config.kafka?.sasl?.username], [true, "inventory"]);
    assert.equal(config.redis?.url, SECRETS["inventory-redis/url"]);
  });
});

describe("overlays/dev", {
  skip: kustomize === undefined && "neither kustomize nor kubectl is installed",
}, () => {
  it("has a Redis that loses nothing it acknowledged, under the name that the service is given", () => {
    const resources = build("overlays/dev");
    const redis = one(resources, "StatefulSet", Resource, "redis");
    const text = JSON.stringify(redis);
    assert.match(text, /"--appendonly","yes","--appendfsync","always","--maxmemory-policy","noeviction"/);
    assert.equal(new URL(environmentOf(resources)["REDIS_URL"] ?? "").hostname, redis.metadata.name);
  });
});
