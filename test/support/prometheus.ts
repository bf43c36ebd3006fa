import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parse } from "yaml";
import { freePort } from "./free-port.ts";
import { need } from "./programs.ts";
import { startServerProcess } from "./server-process.ts";
import { Hopeless, until } from "./until.ts";

/** A minute of the rules lasts two seconds here. Thresholds stay as delivered. */
const SPEED = 30;
/** As if it scraped every 30 seconds. More often, a server that waits for a slow Redis would not respond in time. */
const INTERVAL = "1s";
const DELIVERED = join(import.meta.dirname, "../../deploy/prometheus");
const START_MS_MAX = 30_000;
/** The longest rule needs a minute here. The rest is for a busy machine. */
const FIRING_MS_MAX = 150_000;

/** What a job scrapes: `host:port`, and the labels that tell one group of targets from another. */
export interface Targets {
  readonly targets: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
}

/** The real Prometheus with the delivered configuration and rules, on compressed time. */
export interface Prometheus extends AsyncDisposable {
  /** The names of the alerts that are firing. */
  firing(): Promise<ReadonlySet<string>>;
  /** The value of the first series of an expression. */
  value(expression: string): Promise<number | undefined>;
  /** The label sets with which an alert is firing. */
  labelsOf(alert: string): Promise<Record<string, string>[]>;
  /** Resolves when all of these alerts are firing. */
  untilFiring(...alerts: readonly string[]): Promise<void>;
  /** Resolves when none of these alerts is firing. */
  untilSilent(...alerts: readonly string[]): Promise<void>;
  /** Resolves when every target has been scraped. */
  untilScraped(): Promise<void>;
}

interface Configuration {
  readonly scrape_configs: readonly { readonly job_name: string }[];
}

interface Rules {
  readonly groups: readonly { readonly rules: readonly { readonly expr: string; readonly for?: string }[] }[];
}

interface ActiveAlert {
  readonly state: "pending" | "firing";
  readonly labels: Readonly<Record<string, string>>;
}

/** Starts it with these targets for each job of the delivered configuration; a job without any is left out. */
export async function startPrometheus(
  jobs: Readonly<Record<string, readonly Targets[]>>,
): Promise<Prometheus> {
  const program = need("prometheus");
  if (program.missing) throw new Error(`Cannot start Prometheus: ${program.missing}`);
  const dir = await mkdtemp(join(tmpdir(), "inventory-prometheus-"));
  const [port, config] = [await freePort(), join(dir, "prometheus.json")];
  await writeFile(join(dir, "alerts.yaml"), JSON.stringify(await compressedRules()));
  await writeFile(config, JSON.stringify(await compressedConfiguration(jobs)));
  const url = `http://127.0.0.1:${port}`;
  const process = await startServerProcess({
    command: program.path,
    args: [
      `--config.file=${config}`,
      `--storage.tsdb.path=${join(dir, "data")}`,
      `--web.listen-address=127.0.0.1:${port}`,
      "--log.level=warn",
    ],
    logFile: join(dir, "prometheus.log"),
    removeOnCrash: dir,
  });

  async function ask<T>(path: string): Promise<T> {
    const response = await fetch(`${url}/api/v1/${path}`);
    return ((await response.json()) as { data: T }).data;
  }
  async function firingAlerts(): Promise<ActiveAlert["labels"][]> {
    const { alerts } = await ask<{ alerts: ActiveAlert[] }>("alerts");
    return alerts.filter(({ state }) => state === "firing").map(({ labels }) => labels);
  }
  const firing = async () => new Set((await firingAlerts()).map(({ alertname = "" }) => alertname));
  const stop = async (): Promise<void> => {
    await process.end("SIGKILL");
    await rm(dir, { recursive: true, force: true });
  };

  const prometheus: Prometheus = {
    firing,
    value: async (expression) => {
      const { result } = await ask<{ result: { value: [number, string] }[] }>(
        `query?query=${encodeURIComponent(expression)}`,
      );
      return result[0] && Number(result[0].value[1]);
    },
    labelsOf: async (alert) => (await firingAlerts()).filter(({ alertname }) => alertname === alert),
    untilFiring: async (...alerts) => {
      await until(
        async () => {
          const found = await firing();
          const silent = alerts.filter((alert) => !found.has(alert));
          if (silent.length > 0) {
            throw new Error(`${silent.join(", ")} not; ${[...found].join(", ") || "none"} is firing`);
          }
          return true;
        },
        `${alerts.join(", ")} fire`,
        FIRING_MS_MAX,
      );
    },
    untilSilent: async (...alerts) => {
      await until(
        async () => {
          const found = await firing();
          return !alerts.some((alert) => found.has(alert));
        },
        `${alerts.join(", ")} no longer fire`,
        FIRING_MS_MAX,
      );
    },
    untilScraped: async () => {
      await until(
        async () => {
          const { activeTargets } = await ask<{ activeTargets: { health: string }[] }>("targets");
          return activeTargets.length > 0 && activeTargets.every(({ health }) => health === "up");
        },
        "every target is scraped",
        START_MS_MAX,
      );
    },
    [Symbol.asyncDispose]: stop,
  };
  try {
    await until(
      async () => {
        if (!process.running()) throw new Hopeless(process.describe());
        return (await fetch(`${url}/-/ready`)).ok;
      },
      "Prometheus is ready",
      START_MS_MAX,
    );
    await prometheus.untilScraped();
  } catch (error) {
    await stop();
    throw error;
  }
  return prometheus;
}

async function compressedRules(): Promise<unknown> {
  const { groups } = parse(await readFile(join(DELIVERED, "alerts.yaml"), "utf8")) as Rules;
  return {
    groups: groups.map((group) => ({
      ...group,
      rules: group.rules.map((rule) => ({
        ...rule,
        expr: rule.expr.replace(/\[(\w+)\]/g, (_, duration: string) => `[${compressed(duration)}]`),
        ...(rule.for && { for: compressed(rule.for) }),
      })),
    })),
  };
}

async function compressedConfiguration(
  jobs: Readonly<Record<string, readonly Targets[]>>,
): Promise<Record<string, unknown>> {
  const text = await readFile(join(DELIVERED, "prometheus.yaml"), "utf8");
  const delivered = parse(text) as Configuration;
  const names = delivered.scrape_configs.map((job) => job.job_name);
  const unknown = Object.keys(jobs).filter((name) => !names.includes(name));
  if (unknown.length > 0) {
    throw new Error(`prometheus.yaml has no job ${unknown.join(", ")}`);
  }
  return {
    global: { scrape_interval: INTERVAL, scrape_timeout: INTERVAL, evaluation_interval: INTERVAL },
    rule_files: ["alerts.yaml"],
    scrape_configs: delivered.scrape_configs
      .filter(({ job_name }) => jobs[job_name] !== undefined)
      .map((job) => ({ ...job, static_configs: jobs[job.job_name] })),
  };
}

const UNIT_MS: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000 };

function compressed(duration: string): string {
  const [, count, unit = ""] = /^(\d+)([smh])$/.exec(duration) ?? [];
  const unitMs = UNIT_MS[unit];
  if (unitMs === undefined) {
    throw new Error(`the duration ${duration} is not of the form 15s, 5m or 1h`);
  }
  return `${(Number(count) * unitMs) / SPEED}ms`;
}
