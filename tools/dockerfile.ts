import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** One instruction, with its build arguments substituted: `{ name: "COPY", flags: { from: "page" }, args: ["/app/dist", "dist"] }`. */
export interface Instruction {
  readonly name: string;
  readonly flags: Readonly<Record<string, string>>;
  /** The words, or the elements of the JSON form. */
  readonly args: readonly string[];
  /** Everything after the flags, as written. */
  readonly text: string;
}

export interface Stage {
  readonly name: string | undefined;
  readonly image: string;
  readonly instructions: readonly Instruction[];
}

/** The instructions that this project uses. Any other is an error, so that none is ignored unnoticed. */
const KNOWN = new Set([
  "ARG",
  "CMD",
  "COPY",
  "ENV",
  "EXPOSE",
  "FROM",
  "HEALTHCHECK",
  "RUN",
  "STOPSIGNAL",
  "USER",
  "WORKDIR",
]);

/**
 * Parses the part of the Dockerfile syntax that this project uses: comments, continued lines, build arguments with a default,
 * and the shell and JSON forms. Throws on anything else.
 */
export function readDockerfile(text: string): Stage[] {
  const buildArguments = new Map<string, string>();
  const stages: { name: string | undefined; image: string; instructions: Instruction[] }[] = [];
  for (const line of logicalLines(text)) {
    const instruction = readInstruction(line, buildArguments);
    const { name, args } = instruction;
    if (name === "ARG") {
      const [, key, value] = /^(\w+)=(\S+)$/.exec(args[0] ?? "") ?? [];
      if (key === undefined || value === undefined) throw new Error(`No default: ${line}`);
      buildArguments.set(key, value);
    } else if (name === "FROM") {
      stages.push({
        name: args[1]?.toUpperCase() === "AS" ? args[2] : undefined,
        image: args[0] ?? "",
        instructions: [],
      });
    } else {
      const stage = stages.at(-1);
      if (stage === undefined) throw new Error(`Before the first FROM: ${line}`);
      stage.instructions.push(instruction);
    }
  }
  return stages;
}

function logicalLines(text: string): string[] {
  return text
    .split("\n")
    .filter((line) => !/^\s*#/.test(line))
    .join("\n")
    .replaceAll(/\\\n/g, " ")
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
}

function readInstruction(line: string, buildArguments: ReadonlyMap<string, string>): Instruction {
  const [, name = "", rest = ""] = /^([A-Z]+)\s+(.*)$/.exec(line) ?? [];
  if (!KNOWN.has(name)) throw new Error(`Unknown instruction: ${line}`);
  const flags: Record<string, string> = {};
  let text = rest.replaceAll(/\$\{(\w+)\}/g, (whole, key: string) => buildArguments.get(key) ?? whole);
  for (
    let flag = /^--([\w-]+)=(\S+)\s+/.exec(text);
    flag !== null;
    flag = /^--([\w-]+)=(\S+)\s+/.exec(text)
  ) {
    flags[flag[1] ?? ""] = flag[2] ?? "";
    text = text.slice(flag[0].length);
  }
  return { name, flags, args: wordsOf(text), text };
}

/** In `HEALTHCHECK … CMD ["node", "x"]`, CMD is the first word. */
function wordsOf(text: string): string[] {
  const [, before = "", json] = /^([^[]*)(\[.*\])$/.exec(text) ?? [];
  if (json === undefined) return text.split(/\s+/);
  const elements: unknown = JSON.parse(json);
  if (!Array.isArray(elements) || !elements.every((element) => typeof element === "string")) {
    throw new Error(`Not an array of strings: ${json}`);
  }
  return [...before.split(/\s+/).filter((word) => word !== ""), ...elements];
}

/** The files of a folder that are sent to a builder, according to .dockerignore. The last matching pattern decides. */
export function buildContext(root: string): string[] {
  const patterns = readFileSync(join(root, ".dockerignore"), "utf8")
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => ({ isException: line.startsWith("!"), path: line.replace(/^!/, "").replace(/\/$/, "") }))
    .map(({ isException, path }) => ({ isException, path, matches: matcherOf(path) }));
  const isSent = (path: string): boolean => {
    const last = patterns.findLast(({ matches }) => ancestorsOf(path).some((part) => matches.test(part)));
    return last === undefined || last.isException;
  };
  const isTraversed = (path: string): boolean =>
    isSent(path) || patterns.some((pattern) => pattern.isException && pattern.path.startsWith(`${path}/`));
  const files: string[] = [];
  const walk = (folder: string): void => {
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
      if (entry.isDirectory()) {
        if (isTraversed(path)) walk(path);
      } else if (isSent(path)) files.push(path);
    }
  };
  walk("");
  return files;
}

/** Like Go's `filepath.Match`, where a leading dot is not special. `**` matches any number of folders. */
function matcherOf(glob: string): RegExp {
  const source = glob
    .replaceAll(/[.+^${}()|[\]\\]/g, "\\$&")
    .replaceAll(/\*\*\/?|\*|\?/g, (wild) => (wild === "*" ? "[^/]*" : wild === "?" ? "[^/]" : ".*"));
  return new RegExp(`^${source}$`);
}

/** `a/b/c` gives `a`, `a/b` and `a/b/c`: a pattern that matches a folder matches its files. */
function ancestorsOf(path: string): string[] {
  const parts = path.split("/");
  return parts.map((_, index) => parts.slice(0, index + 1).join("/"));
}
