import { existsSync, readdirSync, statSync } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { extname, join } from "node:path";
import { promisify } from "node:util";
import { brotliCompress, gzip } from "node:zlib";
import { build } from "vite";

// Builds the page and the element into dist/web, with a compressed copy of every file. `--if-stale`: only if a source is
// newer than the last build.

const root = join(import.meta.dirname, "..");
const folder = join(root, "dist/web");
/** Written last, so that an interrupted build does not count. */
const stamp = join(folder, ".vite/built");
const SOURCES = ["web", "gen", "vite.config.ts", "package-lock.json", "tools/build-web.ts"];
const COMPRESSED = new Set([".js", ".css", ".svg", ".html"]);

if (!process.argv.includes("--if-stale") || isStale()) {
  const startMs = performance.now();
  await build({ configFile: join(root, "vite.config.ts") });
  await build({ configFile: join(root, "vite.config.ts"), mode: "embed" });
  const files = await compressAll();
  await writeFile(stamp, "");
  process.stdout.write(`Built the page: ${files} files in ${Math.round(performance.now() - startMs)} ms\n`);
}

function isStale(): boolean {
  if (!existsSync(stamp)) return true;
  const builtMs = statSync(stamp).mtimeMs;
  return SOURCES.some((source) => newestMs(join(root, source)) > builtMs);
}

function newestMs(path: string): number {
  const entry = statSync(path);
  if (!entry.isDirectory()) return entry.mtimeMs;
  return readdirSync(path).reduce(
    (newest, name) => Math.max(newest, newestMs(join(path, name))),
    entry.mtimeMs,
  );
}

async function compressAll(): Promise<number> {
  const names = (await readdir(folder, { recursive: true })).filter((name) => COMPRESSED.has(extname(name)));
  await Promise.all(
    names.map(async (name) => {
      const bytes = await readFile(join(folder, name));
      await writeFile(`${join(folder, name)}.br`, await promisify(brotliCompress)(bytes));
      await writeFile(`${join(folder, name)}.gz`, await promisify(gzip)(bytes, { level: 9 }));
    }),
  );
  return names.length;
}
