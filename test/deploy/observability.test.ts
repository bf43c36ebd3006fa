import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { parse } from "yaml";
import { startTestApp, type TestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { scrape } from "../support/scrape.ts";
import { FIRED_IN } from "./alerts/coverage.ts";

const root = join(import.meta.dirname, "../..");
const run = promisify(execFile);
const promtool = need("promtool");

/** Metrics of other programs: Prometheus itself, redis_exporter, node_exporter. */
const METRICS_OF_OTHERS = [
  /^up$/,
  /^redis_memory_(used|max)_bytes$/,
  /^redis_cluster_(state|slots_ok)$/,
  /^node_filesystem_(avail|size)_bytes$/,
];
/** Values for the variables of Grafana. */
const GRAFANA_VARIABLES = { $__rate_interval: "5m", $instance: ".*" };

interface Rule {
  readonly alert?: string;
  readonly record?: string;
  readonly expr: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

interface Panel {
  readonly type: string;
  readonly title: string;
  readonly targets?: readonly { readonly expr: string }[];
}

interface Dashboard {
  readonly panels: readonly Panel[];
  readonly annotations: { readonly list: readonly { readonly expr: string }[] };
  readonly templating: { readonly list: readonly { readonly query: string | { readonly query: string } }[] };
}

async function readRules(): Promise<Rule[]> {
  const text = await readFile(join(root, "deploy/prometheus/alerts.yaml"), "utf8");
  const { groups } = parse(text) as { groups: { rules: Rule[] }[] };
  return groups.flatMap(({ rules }) => rules);
}

async function readDashboard(): Promise<{ dashboard: Dashboard; expressions: string[] }> {
  const text = await readFile(join(root, "deploy/grafana/dashboard.json"), "utf8");
  const dashboard = JSON.parse(text) as Dashboard;
  const ofPanels = dashboard.panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));
  const ofVariables = dashboard.templating.list.flatMap(({ query }) =>
    typeof query === "string" ? [] : (/^label_values\((.+), \w+\)$/.exec(query.query)?.[1] ?? []),
  );
  const all = [...ofPanels, ...ofVariables, ...dashboard.annotations.list.map(({ expr }) => expr)];
  return { dashboard, expressions: all.map(withoutVariables) };
}

function withoutVariables(expression: string): string {
  return Object.entries(GRAFANA_VARIABLES).reduce(
    (text, [variable, value]) => text.replaceAll(variable, value),
    expression,
  );
}

/** The names of the metrics in a PromQL expression: identifiers that are neither keywords, functions nor labels. */
function metricsIn(expression: string): string[] {
  const bare = expression
    .replace(/"[^"]*"/g, '""')
    .replace(/\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)/g, "")
    .replace(/\{[^}]*\}/g, "")
    .replace(/\[[^\]]*\]/g, "");
  return [...bare.matchAll(/(?<![\w:])[a-z_][\w:]*(?!\s*\()(?![\w:])/g)]
    .map(([name]) => name)
    .filter((name) => !["and", "or", "unless", "bool", "offset"].includes(name));
}

describe("dashboard and alerts", () => {
  let app: TestApp;
  let known: Set<string>;

  before(async () => {
    app = await startTestApp({ ADMIN_PORT: "0" });
    const { types } = await scrape(app.adminUrl);
    known = new Set(
      [...types].flatMap(([name, type]) =>
        type === "histogram" ? ["bucket", "sum", "count"].map((part) => `${name}_${part}`) : [name],
      ),
    );
  });
  after(() => app?.stop());

  function isKnown(metric: string): boolean {
    return known.has(metric) || METRICS_OF_OTHERS.some((pattern) => pattern.test(metric));
  }

  it("refer to metrics that a server has", async () => {
    const rules = await readRules();
    const recorded = new Set(rules.flatMap(({ record = [] }) => record));
    const { expressions } = await readDashboard();
    const asked = [...rules.map(({ expr }) => expr), ...expressions].flatMap(metricsIn);
    assert.ok(asked.length > 80, `only ${asked.length} metrics were found in them`);
    const unknown = [...new Set(asked)].filter((metric) => !isKnown(metric) && !recorded.has(metric));
    assert.deepEqual(unknown, []);
  });

  it("show every metric of this service on the dashboard", async () => {
    const { expressions } = await readDashboard();
    const shown = new Set(
      expressions.flatMap(metricsIn).map((name) => name.replace(/_(bucket|sum|count)$/, "")),
    );
    const unseen = [...known]
      .map((name) => name.replace(/_(bucket|sum|count)$/, ""))
      .filter((name) => /^(inventory|grpc)_/.test(name) && !shown.has(name));
    assert.deepEqual([...new Set(unseen)], []);
  });

  it("have unique names, and queries", async () => {
    const { dashboard } = await readDashboard();
    const panels = dashboard.panels.filter(({ type }) => type !== "row");
    assert.ok(panels.every(({ title, targets }) => title !== "" && targets?.length));
    const names = (await readRules()).map(({ alert, record }) => alert ?? record);
    assert.equal(new Set(names).size, names.length);
  });

  it("link to a section of the runbook, and every section has an alert", async () => {
    const operations = await readFile(join(root, "docs/operations.md"), "utf8");
    const sections = [...operations.matchAll(/^### (Inventory\w+)$/gm)].map(([, name]) => name);
    const alerts = (await readRules()).filter(({ alert }) => alert !== undefined);
    for (const { alert = "", labels, annotations } of alerts) {
      assert.equal(annotations?.["runbook"], `docs/operations.md#${alert.toLowerCase()}`);
      assert.ok(["page", "ticket"].includes(labels?.["severity"] ?? ""), alert);
      assert.ok(annotations?.["summary"], alert);
    }
    assert.deepEqual([...sections].sort(), alerts.map(({ alert }) => alert).sort());
  });

  it("are each made to fire by their fault in one long test", async () => {
    const tested: string[] = Object.values(FIRED_IN).flat();
    const alerts = (await readRules()).flatMap(({ alert = [] }) => alert);
    assert.deepEqual(tested.sort(), alerts.sort());
    for (const file of Object.keys(FIRED_IN)) {
      const text = await readFile(join(root, file), "utf8");
      assert.ok(text.includes(`new FiredAlerts("${file}")`), `${file} does not record what fires`);
      assert.ok(text.includes("fired.assertComplete("), `${file} does not check what fired`);
    }
  });

  it("are described in the table of metrics", async () => {
    const operations = await readFile(join(root, "docs/operations.md"), "utf8");
    const { types } = await scrape(app.adminUrl);
    const undocumented = [...types.keys()].filter(
      (name) => /^(inventory|grpc)_/.test(name) && !operations.includes(`\`${name}\``),
    );
    assert.deepEqual(undocumented, []);
  });

  it("are valid PromQL, rules and configuration", { skip: promtool.missing }, async () => {
    const dir = await mkdtemp(join(tmpdir(), "inventory-rules-"));
    try {
      const { expressions } = await readDashboard();
      const rules = expressions.map((expr, n) => ({ record: `dashboard:${n}`, expr }));
      const ofDashboard = join(dir, "dashboard.yaml");
      await writeFile(ofDashboard, JSON.stringify({ groups: [{ name: "dashboard", rules }] }));
      await run(promtool.path, ["check", "rules", ofDashboard]);
      await run(promtool.path, ["check", "rules", join(root, "deploy/prometheus/alerts.yaml")]);
      await run(promtool.path, ["check", "config", join(root, "deploy/prometheus/prometheus.yaml")]);
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });

  it("fire when they should, and only then", { skip: promtool.missing }, async () => {
    await run(promtool.path, ["test", "rules", join(import.meta.dirname, "alerts.test.yaml")]);
  });

  it("are exported in a format that promtool accepts", { skip: promtool.missing }, async () => {
    const text = await (await fetch(`${app.adminUrl}/metrics`)).text();
    const checking = run(promtool.path, ["check", "metrics"]);
    checking.child.stdin?.end(text);
    // Its other findings are about names that this service does not choose.
    const { stdout, stderr } = await checking.catch((error: { stdout: string; stderr: string }) => error);
    const ours = `${stdout}${stderr}`.split("\n").filter((line) => line.startsWith("inventory_"));
    assert.deepEqual(ours, []);
  });
});
