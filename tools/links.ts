import { globSync, readFileSync } from "node:fs";
import { basename, dirname, join, posix } from "node:path";

/** Folders that are not part of the sources. */
const SKIPPED = ["node_modules", ".git", ".cache", "dist"];

/** A file name in back-ticks may be relative to one of these, or to the page's own folder. */
const BASES = ["", "server", "web"];

/** What a path in back-ticks ends in. Anything else, such as a content type, is not looked up. */
const PATH =
  /^[\w.@*{},-]+(?:\/[\w.@*{},-]+)*(?:\/|\.(?:ts|lua|md|ya?ml|json|proto|conf|html|css|go|png|webp))$/;

/** Generated, so absent from a fresh checkout. */
const GENERATED = /^(?:dist\/|\.cache\/)/;

/** The changelog keeps former file names. */
const PAGES_WITH_OLD_NAMES = ["CHANGELOG.md"];

/** The page whose tables say which file decides a rule, with the name to look for in it. */
const INDEX_OF_RULES = "docs/architecture.md";
/** A name in code that is more than a word: `camelCase`, `snake_case`, `CONSTANT_CASE`. */
const NAME = /^(?=.*[a-z_][A-Z_]|.*_)[A-Za-z]\w*$/;

/** Tests of the checks name files that do not exist. */
const TESTS_OF_CHECKS = /^test\/tools\//;

/** Sources whose comments and messages name pages of docs/. */
const SOURCES =
  /^(?:server|web|tools|test|deploy|proto)\/.*\.(?:ts|lua|ya?ml|json|proto|conf)$|^[^/]*\.ya?ml$/;
const PAGE_NAME = /\bdocs\/[\w/-]+\.md(?:#[\w-]+)?/g;

const LINK = /\[[^\]]*\]\(([^()\s]+)\)/g;
const CODE_SPAN = /`([^`\n]+)`/g;
const HEADING = /^#{1,6} +(.+)$/gm;

/**
 * Finds references to files that do not exist: targets of relative links, with their anchors, files
 * and folders in back-ticks, and pages that a source file names. Returns one line for each.
 */
export function findBrokenLinks(root: string): string[] {
  const files = globSync("**/*", { cwd: root, exclude: (name) => SKIPPED.includes(basename(name)) }).map(
    (file) => file.replaceAll("\\", "/"),
  );
  const tree = new Tree(root, files);
  const pages = files.filter((file) => file.endsWith(".md"));
  const broken = pages.flatMap((page) => [
    ...brokenTargets(tree, page),
    ...(PAGES_WITH_OLD_NAMES.includes(page) ? [] : missingPaths(tree, page)),
    ...(page === INDEX_OF_RULES ? missingNames(tree, page) : []),
  ]);
  for (const source of files.filter((file) => SOURCES.test(file) && !TESTS_OF_CHECKS.test(file))) {
    for (const [target] of tree.text(source).matchAll(PAGE_NAME)) {
      if (!tree.hasTarget(target)) broken.push(`${source} names ${target}, which does not exist`);
    }
  }
  return broken;
}

class Tree {
  readonly #root: string;
  readonly #paths: ReadonlySet<string>;
  readonly #names: ReadonlySet<string>;

  constructor(root: string, files: readonly string[]) {
    this.#root = root;
    this.#paths = new Set(files);
    this.#names = new Set(files.map((file) => posix.basename(file)));
  }

  text(file: string): string {
    return readFileSync(join(this.#root, file), "utf8");
  }

  /** Whether a file or folder is there; `*` and `{a,b}` match as in a shell. */
  has(path: string): boolean {
    const plain = path.replace(/\/$/, "");
    if (this.#paths.has(plain) || plain === ".") return true;
    return /[*{]/.test(plain) && [...this.#paths].some((file) => posix.matchesGlob(file, plain));
  }

  hasFile(path: string): boolean {
    return this.#paths.has(path);
  }

  hasName(name: string): boolean {
    return this.#names.has(name);
  }

  /** Whether a page, and the heading after its `#`, is there. */
  hasTarget(target: string): boolean {
    const [path = "", anchor] = target.split("#");
    return this.has(path) && (anchor === undefined || anchorsOf(this.text(path)).has(anchor));
  }
}

function brokenTargets(tree: Tree, page: string): string[] {
  const targets = [...withoutCode(tree.text(page)).matchAll(LINK)].map(([, target = ""]) => target);
  return targets
    .filter((target) => !/^[a-z]+:/.test(target))
    .filter((target) => !tree.hasTarget(target.startsWith("#") ? page + target : resolve(page, target)))
    .map((target) => `${page} links to ${target}, which does not exist`);
}

function missingPaths(tree: Tree, page: string): string[] {
  const spans = [...withoutFences(tree.text(page)).matchAll(CODE_SPAN)].map(([, span = ""]) => span);
  return spans
    .filter((span) => PATH.test(span) && !GENERATED.test(span))
    .filter((span) => {
      const isBare = !span.replace(/\/$/, "").includes("/");
      return candidates(page, span).every((path) => !tree.has(path)) && !(isBare && tree.hasName(span));
    })
    .map((span) => `${page} names \`${span}\`, which does not exist`);
}

/** Names in a row of a table that none of the files in that row has. */
function missingNames(tree: Tree, page: string): string[] {
  const rows = withoutFences(tree.text(page)).match(/^\|.+\|$/gm) ?? [];
  return rows.flatMap((row) => {
    const spans = [...row.matchAll(CODE_SPAN)].map(([, span = ""]) => span);
    const files = spans
      .filter((span) => PATH.test(span) && !span.endsWith("/"))
      .flatMap((span) => candidates(page, span).filter((path) => tree.hasFile(path)));
    const text = files.map((file) => tree.text(file)).join("\n");
    return spans
      .filter((span) => files.length > 0 && NAME.test(span) && !new RegExp(`\\b${span}\\b`).test(text))
      .map((name) => `${page} names \`${name}\`, which ${files.join(", ")} does not have`);
  });
}

/** Where a path in back-ticks may lead to. */
function candidates(page: string, span: string): string[] {
  return [dirname(page), ...BASES].map((base) => posix.join(base, span));
}

function resolve(page: string, target: string): string {
  return posix.join(posix.dirname(page), target);
}

/** The anchors that GitHub gives the headings of a page. */
function anchorsOf(text: string): ReadonlySet<string> {
  const titles = [...withoutFences(text).matchAll(HEADING)].map(([, title = ""]) => title);
  return new Set(
    titles.map((title) =>
      title
        .toLowerCase()
        .replace(/\[([^\]]*)\]\([^)]*\)/g, "$1")
        .replace(/[^\p{L}\p{N}\s_-]/gu, "")
        .trim()
        .replace(/\s/g, "-"),
    ),
  );
}

function withoutFences(text: string): string {
  return text.replace(/^ *```[\s\S]*?^ *```$/gm, "");
}

function withoutCode(text: string): string {
  return withoutFences(text).replace(CODE_SPAN, "");
}
