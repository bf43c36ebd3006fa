import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";

/** Where the product's own code is. */
const FOLDERS = ["server", "web"];

/** Longest source file: beyond it there is usually a second thing in the file. */
const LINES_MAX = 400;

/** Which rooms of server/ a room may look into, besides itself. `app.ts` and `main.ts` may look into all. */
const ARROWS: Readonly<Record<string, readonly string[]>> = {
  inventory: [],
  ops: ["inventory"],
  memory: ["inventory"],
  redis: ["inventory", "ops"],
  kafka: ["inventory", "ops", "wire"],
  wire: ["inventory", "gen"],
  live: ["inventory", "ops"],
  access: [],
  rpc: ["inventory", "ops", "access", "live", "wire", "gen", "web"],
  demo: ["inventory", "gen"],
};

/** Packages that one room alone may import. */
const OWNED_PACKAGES: Readonly<Record<string, string>> = {
  kafkajs: "kafka",
  ioredis: "redis",
  jose: "access",
  "@opentelemetry/sdk-trace": "ops",
};

/** The files that nothing imports because they are started: by npm, by a tool, by a page. */
const ENTRANCES = [
  "server/main.ts",
  "server/kafka/redrive.ts",
  "web/page/main.ts",
  "web/embed/embed.ts",
  "web/embed-demo/demo.ts",
];

const IMPORT = /^\s*(?:import|export)\b[^"';]*?["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']\s*\)/gm;

/**
 * The rules of the house that no linter knows: which room may look into which, where the
 * environment is read, how long a file may be, and that every file is used. Returns the breaches, one
 * line each.
 *
 * After TigerBeetle's src/tidy.zig: style runs as a test.
 */
export function findBreaches(root: string): string[] {
  const breaches: string[] = [];
  const files = FOLDERS.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((file) => file.endsWith(".ts"))
      .map((file) => join(folder, file).split(sep).join("/")),
  );
  const imported = new Set<string>(ENTRANCES);
  for (const file of files) {
    const text = readFileSync(join(root, file), "utf8");
    // web/ is one room, bounded by what a browser can run.
    const room = file.startsWith("server/") ? roomOf(file) : "";
    for (const target of importsOf(text)) {
      if (target.startsWith(".")) {
        const path = relative(root, join(root, dirname(file), target))
          .split(sep)
          .join("/");
        imported.add(path);
        breaches.push(...arrowBreaches(file, room, path));
      } else {
        breaches.push(...packageBreaches(file, room, target));
      }
    }
    const lines = text.split("\n").length - 1;
    if (lines > LINES_MAX) {
      breaches.push(`${file} has ${lines} lines; the most is ${LINES_MAX}: look for the second thing in it`);
    }
    if (/\bprocess\.env\b/.test(text) && file !== "server/config.ts") {
      breaches.push(`${file} reads process.env; server/config.ts alone does`);
    }
  }
  for (const file of files) {
    if (!imported.has(file)) {
      breaches.push(`${file} is imported by nothing; delete it`);
    }
  }
  return breaches;
}

/** `redis` for server/redis/…, and "" for the files right under server/. */
function roomOf(path: string): string {
  const parts = path.split("/");
  return parts.length > 2 ? (parts[1] ?? "") : "";
}

function importsOf(text: string): string[] {
  return [...text.matchAll(IMPORT)].map((match) => match[1] ?? match[2] ?? "");
}

function arrowBreaches(file: string, room: string, target: string): string[] {
  if (room === "") {
    return [];
  }
  const targetRoom = /^(gen|web)\//.test(target)
    ? (target.split("/")[0] ?? "")
    : target.startsWith("server/")
      ? roomOf(target)
      : target;
  if (targetRoom === room || ARROWS[room]?.includes(targetRoom) === true) {
    return [];
  }
  return [
    `${file} imports ${target}; server/${room}/ may look into ${ARROWS[room]?.join(", ") || "nothing"} only`,
  ];
}

function packageBreaches(file: string, room: string, target: string): string[] {
  const name = target.startsWith("@")
    ? target.split("/").slice(0, 2).join("/")
    : (target.split("/")[0] ?? "");
  const owner = OWNED_PACKAGES[name];
  return owner !== undefined && owner !== room
    ? [`${file} imports ${name}; server/${owner}/ alone does`]
    : [];
}
