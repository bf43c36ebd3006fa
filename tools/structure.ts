import { readdirSync, readFileSync } from "node:fs";
import { join, posix, sep } from "node:path";

/** Where the product's own code is. */
const FOLDERS = ["server", "cli", "web"];

/** Maximum lines of a source file. A longer file usually has more than one responsibility. */
const LINES_MAX = 400;

/** The files that may read the environment. */
const ENVIRONMENT_READERS = ["server/config.ts", "cli/settings.ts"];

/** The page whose table says which folders a folder of server/, and cli/, may import from. Files directly in server/ may import
 * from every folder. */
const ARCHITECTURE = "docs/architecture.md";
const TABLE_HEADING = "| folder | holds | may import |";

/** Packages that one folder alone may import. */
const OWNED_PACKAGES: Readonly<Record<string, string>> = {
  kafkajs: "kafka/kafkajs",
  ioredis: "redis",
  jose: "access",
  "@opentelemetry/sdk-trace": "ops",
};

/** Files that nothing imports because npm, a tool or a page starts them. */
const ENTRY_POINTS = [
  "server/main.ts",
  "cli/main.ts",
  "server/kafka/dead-letters/describe-message.ts",
  "server/kafka/dead-letters/redrive.ts",
  "server/kafka/dead-letters/skip-message.ts",
  "server/redis/adopt-plain-keys.ts",
  "server/redis/copy/copy-ledger.ts",
  "web/page/main.ts",
  "web/page/demo.ts",
  "web/embed/embed.ts",
  "web/embed-demo/demo.ts",
];

const IMPORT = /^\s*(?:import|export)\b[^"';]*?["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']\s*\)/gm;
/** A file that a worker thread runs. It is no part of the module graph of the file that starts the thread, so not of its cycles. */
const WORKER = /\bnew Worker\(\s*new URL\(\s*["']([^"']+)["']/g;

/**
 * The structure rules that the linter does not check: which folder may import which, no import cycles, where
 * the environment is read, how long a file may be, and that every file is used. Returns the violations,
 * one line each.
 *
 * After TigerBeetle's src/tidy.zig: style runs as a test.
 */
export function findViolations(root: string): string[] {
  const violations: string[] = [];
  const allowed = readAllowedImports(root);
  const files = FOLDERS.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((file) => file.endsWith(".ts"))
      .map((file) => join(folder, file).split(sep).join("/")),
  );
  const imports = new Map<string, readonly string[]>();
  const used = new Set(ENTRY_POINTS);
  for (const file of files) {
    const text = readFileSync(join(root, file), "utf8");
    const targets = importsOf(text);
    const paths = targets.filter((target) => target.startsWith(".")).map((target) => resolve(file, target));
    imports.set(file, paths);
    const workers = [...text.matchAll(WORKER)].map((match) => resolve(file, match[1] ?? ""));
    for (const worker of workers) used.add(worker);
    // web/ is one folder here, bounded by what a browser can run.
    const folder = file.startsWith("web/") ? "" : folderOf(file);
    violations.push(
      ...[...paths, ...workers].flatMap((path) => importViolations(allowed, file, folder, path)),
    );
    for (const target of targets.filter((each) => !each.startsWith("."))) {
      violations.push(...packageViolations(file, target));
    }
    const lines = text.split("\n").length - 1;
    if (lines > LINES_MAX) {
      violations.push(
        `${file} has ${lines} lines; at most ${LINES_MAX} are allowed: split it by responsibility`,
      );
    }
    if (/\bprocess\.env\b/.test(text) && !ENVIRONMENT_READERS.includes(file)) {
      violations.push(`${file} reads process.env; only ${ENVIRONMENT_READERS.join(" and ")} may`);
    }
  }
  for (const path of [...imports.values()].flat()) used.add(path);
  for (const file of files) {
    if (!used.has(file)) {
      violations.push(`${file} is imported by nothing; delete it`);
    }
  }
  return [...violations, ...cyclesOf(imports)];
}

/** The last column of the table by its first: `redis` → `inventory`, `ops`. */
function readAllowedImports(root: string): ReadonlyMap<string, readonly string[]> {
  const lines = readFileSync(join(root, ARCHITECTURE), "utf8").split("\n");
  const start = lines.indexOf(TABLE_HEADING);
  if (start < 0) {
    throw new Error(`${ARCHITECTURE} has no table that begins with "${TABLE_HEADING}"`);
  }
  const namesIn = (cell = ""): string[] => [...cell.matchAll(/`([^`]+)\/`/g)].map((match) => match[1] ?? "");
  const allowed = new Map<string, readonly string[]>();
  for (const line of lines.slice(start + 2)) {
    if (!line.startsWith("|")) break;
    const cells = line.split("|");
    const [folder] = namesIn(cells[1]);
    if (folder !== undefined) {
      allowed.set(folder, namesIn(cells.at(-2)));
    }
  }
  return allowed;
}

/** Each import cycle once, as the files on it. Imports of types count: they tie two files together as well. */
function cyclesOf(imports: ReadonlyMap<string, readonly string[]>): string[] {
  const cycles: string[] = [];
  const done = new Set<string>();
  const path: string[] = [];
  const visit = (file: string): void => {
    const start = path.indexOf(file);
    if (start >= 0) {
      cycles.push(`Import cycle: ${[...path.slice(start), file].join(" → ")}`);
      return;
    }
    if (done.has(file)) return;
    path.push(file);
    for (const target of imports.get(file) ?? []) visit(target);
    path.pop();
    done.add(file);
  };
  for (const file of imports.keys()) visit(file);
  return cycles;
}

function resolve(file: string, target: string): string {
  return posix.join(posix.dirname(file), target);
}

/** `redis` for server/redis/…, "" for the files right under server/, and `cli` for all of cli/. */
function folderOf(path: string): string {
  if (path.startsWith("cli/")) return "cli";
  const parts = path.split("/");
  return parts.length > 2 ? (parts[1] ?? "") : "";
}

function importsOf(text: string): string[] {
  return [...text.matchAll(IMPORT)].map((match) => match[1] ?? match[2] ?? "");
}

function importViolations(
  allowed: ReadonlyMap<string, readonly string[]>,
  file: string,
  folder: string,
  target: string,
): string[] {
  if (folder === "") {
    return [];
  }
  const targetFolder = /^(server|cli)\//.test(target)
    ? folderOf(target)
    : target.split("/").slice(0, -1).join("/");
  const folders = allowed.get(folder) ?? [];
  const isAllowed =
    targetFolder === folder ||
    folders.some((each) => targetFolder === each || targetFolder.startsWith(`${each}/`));
  return isAllowed
    ? []
    : [
        `${file} imports ${target}; ${ARCHITECTURE} allows ${folder === "cli" ? "" : "server/"}${folder}/ ${folders.join(", ") || "nothing"}`,
      ];
}

function packageViolations(file: string, target: string): string[] {
  const name = target.startsWith("@")
    ? target.split("/").slice(0, 2).join("/")
    : (target.split("/")[0] ?? "");
  const owner = OWNED_PACKAGES[name];
  return owner !== undefined && !file.startsWith(`server/${owner}/`)
    ? [`${file} imports ${name}; only server/${owner}/ may`]
    : [];
}
