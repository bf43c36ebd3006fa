/**
 * Evaluates the delivered alert rules on what a server has exported. promtool runs them on a timeline that is much longer
 * than a test: a phase shows the state of one or two scrapes as if it had lasted for minutes.
 */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { parse } from "yaml";
import { need } from "./programs.ts";
import { type Scrape, scrape } from "./scrape.ts";

const RULES = join(import.meta.dirname, "../../deploy/prometheus/alerts.yaml");
/** Interval of the samples, as Prometheus scrapes. Shorter if a phase is. */
const STEP_SECONDS_MAX = 15;
const FIRING = 'ALERTS{alertstate="firing"}';
const run = promisify(execFile);

/** A state that lasts. With two scrapes, everything goes on at the rate that was measured between them. */
export interface Phase {
  readonly minutes: number;
  readonly first: Scrape;
  readonly second?: { readonly scrape: Scrape; readonly afterMs: number };
}

/** A state in which nothing changes, as it is now. */
export async function steadyPhase(adminUrl: string | undefined, minutes: number): Promise<Phase> {
  return { minutes, first: await scrape(adminUrl) };
}

/** A state that goes on as from now until `changed` is true of a second scrape. */
export async function movingPhase(
  adminUrl: string | undefined,
  minutes: number,
  untilChanged: (first: Scrape) => Promise<unknown>,
): Promise<Phase> {
  const [first, start] = [await scrape(adminUrl), performance.now()];
  await untilChanged(first);
  const second = await scrape(adminUrl);
  return { minutes, first, second: { scrape: second, afterMs: performance.now() - start } };
}

interface RuleGroup {
  readonly name: string;
  readonly rules: readonly { readonly alert?: string; readonly expr: string }[];
}

/** The names of a group's alerts that fire at the end of the phases, or ever, sorted. */
export async function firingAlerts(
  groupName: string,
  phases: readonly Phase[],
  when: "now" | "ever" = "now",
): Promise<string[]> {
  const { groups } = parse(await readFile(RULES, "utf8")) as { groups: RuleGroup[] };
  const group = groups.find(({ name }) => name === groupName);
  if (group === undefined) {
    throw new Error(`alerts.yaml has no group ${groupName}`);
  }
  const stepSeconds = Math.min(STEP_SECONDS_MAX, ...phases.map((phase) => phase.minutes * 60));
  const expressions = group.rules.map(({ expr }) => expr).join(" ");
  const minutes = phases.reduce((sum, phase) => sum + phase.minutes, 0);
  const dir = await mkdtemp(join(tmpdir(), "inventory-alerts-"));
  const [file, rules] = [join(dir, "test.yaml"), join(dir, "rules.yaml")];
  const test = {
    rule_files: [rules],
    evaluation_interval: `${stepSeconds}s`,
    tests: [
      {
        interval: `${stepSeconds}s`,
        input_series: seriesOf(phases, expressions, stepSeconds),
        promql_expr_test: [
          {
            // promtool reports what it got instead of this sample, which there never is.
            expr: `count by (alertname) (${when === "now" ? FIRING : `max_over_time(${FIRING}[1d])`}) or vector(-1)`,
            eval_time: `${Math.round(minutes * 60)}s`,
            exp_samples: [],
          },
        ],
      },
    ],
  };
  try {
    await writeFile(rules, JSON.stringify({ groups: [group] }));
    await writeFile(file, JSON.stringify(test));
    const { stdout, stderr } = await run(need("promtool").path, ["test", "rules", file]).catch(
      (error: { stdout: string; stderr: string }) => error,
    );
    const got = /^\s*got: (.*)$/m.exec(`${stdout}${stderr}`)?.[1];
    if (got === undefined) {
      throw new Error(`promtool did not evaluate the rules: ${stdout}${stderr}`);
    }
    return [...got.matchAll(/alertname="(\w+)"/g)].map(([, name = ""]) => name).sort();
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** The series of the metrics that the expressions name. */
function seriesOf(
  phases: readonly Phase[],
  expressions: string,
  stepSeconds: number,
): { series: string; values: string }[] {
  const names = new Set(
    phases.flatMap(({ first, second }) => [...first.series, ...(second?.scrape.series ?? [])]),
  );
  const isUsed = (series: string) => new RegExp(`\\b${series.split("{", 1)[0]}\\b`).test(expressions);
  return [...names].filter(isUsed).map((series) => ({
    series: withTarget(series),
    values: phases.flatMap((phase) => valuesOf(series, phase, stepSeconds)).join(" "),
  }));
}

function valuesOf(series: string, { minutes, first, second }: Phase, stepSeconds: number): string[] {
  const steps = Math.round((minutes * 60) / stepSeconds);
  const from = first.values.get(series);
  const to = second === undefined ? from : second.scrape.values.get(series);
  const start = from ?? to;
  const change =
    second === undefined || from === undefined || to === undefined
      ? 0
      : ((to - from) / second.afterMs) * stepSeconds * 1_000;
  return Array.from({ length: steps }, (_, step) =>
    start === undefined ? "_" : String(Number((start + change * step).toFixed(3))),
  );
}

/** With the labels that Prometheus adds. */
function withTarget(series: string): string {
  const target = 'job="inventory",instance="a"';
  return series.endsWith("}") ? `${series.slice(0, -1)},${target}}` : `${series}{${target}}`;
}
