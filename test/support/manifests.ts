import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { parseAllDocuments } from "yaml";
import { z } from "zod";
import { findProgram } from "./programs.ts";

/** The folder of the Kubernetes manifests. */
export const manifests = join(import.meta.dirname, "../../deploy/kubernetes");

const Labels = z.record(z.string(), z.string());
export const Resource = z.looseObject({
  apiVersion: z.string(),
  kind: z.string(),
  metadata: z.looseObject({
    name: z.string(),
    namespace: z.string().optional(),
    labels: Labels.default({}),
  }),
});
export type Resource = z.infer<typeof Resource>;

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
export const Deployment = Resource.extend({
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
export const ConfigMap = Resource.extend({ data: z.record(z.string(), z.string()) });
export const Service = Resource.extend({
  spec: z.looseObject({
    selector: Labels,
    ports: z.array(
      z.looseObject({ port: z.number(), targetPort: z.string(), appProtocol: z.string().optional() }),
    ),
  }),
});
export const Selecting = Resource.extend({
  spec: z.looseObject({ selector: z.strictObject({ matchLabels: Labels }) }),
});
export const NetworkPolicy = Resource.extend({
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
export const Autoscaler = Resource.extend({
  spec: z.looseObject({
    scaleTargetRef: z.strictObject({ apiVersion: z.string(), kind: z.string(), name: z.string() }),
    minReplicas: z.number(),
    maxReplicas: z.number(),
  }),
});

/** The program that builds an overlay, and its arguments before the folder. */
export const kustomize = findKustomize();

function findKustomize(): { path: string; args: readonly string[] } | undefined {
  const own = findProgram("kustomize");
  if (own !== undefined) return { path: own, args: ["build"] };
  const kubectl = findProgram("kubectl");
  return kubectl === undefined ? undefined : { path: kubectl, args: ["kustomize"] };
}

export function build(overlay: string): Resource[] {
  return buildFolder(join(manifests, overlay));
}

/** An overlay with a component that an operator adds to a copy of it. */
export function buildWith(overlay: string, component: string): Resource[] {
  const folder = mkdtempSync(join(tmpdir(), "inventory-kustomize-"));
  try {
    const path = (name: string): string => relative(realpathSync(folder), join(manifests, name));
    const kustomization = { resources: [path(overlay)], components: [path(component)] };
    writeFileSync(join(folder, "kustomization.yaml"), JSON.stringify(kustomization));
    return buildFolder(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function buildFolder(folder: string): Resource[] {
  const { path, args } = kustomize ?? { path: "kustomize", args: [] };
  const text = execFileSync(path, [...args, folder], { encoding: "utf8" });
  return parseAllDocuments(text).map((document) => Resource.parse(document.toJS()));
}

/** The one resource of a kind. */
export function one<T>(
  resources: readonly Resource[],
  kind: string,
  shape: z.ZodType<T>,
  name = "inventory",
): T {
  const found = resources.filter((each) => each.kind === kind && each.metadata.name.startsWith(name));
  assert.equal(found.length, 1, `one ${kind} ${name}`);
  return shape.parse(found[0]);
}
