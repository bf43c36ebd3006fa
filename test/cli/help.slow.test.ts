import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { Command } from "commander";
import { createProgram } from "../../cli/program.ts";
import { INHERITED_ENVIRONMENT, startTestApp, type TestApp } from "../support/app.ts";
import { until } from "../support/until.ts";

// Every example of --help runs against the demo shop, as in a shell into which it was pasted.

const ROOT = join(import.meta.dirname, "../..");
const EXAMPLE = /^ {2}(.*\bnpx inventory .*)$/gm;
const DURATION_MS_MAX = 180_000;

let app: TestApp;
let dir: string;

before(async () => {
  [app, dir] = await Promise.all([startTestApp({ DEMO: "on" }), mkdtemp(join(tmpdir(), "inventory-help-"))]);
  // Stands for npx, whose own start is slow. test/tools/install.test.ts runs the real one.
  const npx = join(dir, "npx");
  await writeFile(npx, `#!/bin/sh\nshift\nexec "${process.execPath}" "${join(ROOT, "cli/main.ts")}" "$@"\n`);
  await chmod(npx, 0o755);
  await mkdir(join(dir, "work"));
});

after(async () => {
  await app.stop();
  await rm(dir, { recursive: true, force: true });
});

/** Pastes a command into a shell. A watch gets SIGINT once it has printed something. */
async function paste(command: string): Promise<{ code: number | null; output: string }> {
  const PATH = [dir, INHERITED_ENVIRONMENT["PATH"]].join(delimiter);
  const isWatch = command.startsWith("npx inventory watch");
  // A shell that waits would be ended by SIGINT as well, and not report the exit code.
  const child = spawn("sh", ["-c", isWatch ? `exec ${command}` : command], {
    cwd: join(dir, "work"),
    env: { ...INHERITED_ENVIRONMENT, PATH, INVENTORY_URL: app.url },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  }
  const closed = once(child, "close");
  if (isWatch) {
    await until(() => output !== "", "the watch prints something", 60_000);
    // To the group, as Ctrl-C sends it.
    process.kill(-(child.pid ?? 0), "SIGINT");
  }
  await closed;
  return { code: child.exitCode, output };
}

/** What `inventory COMMAND --help` prints. */
function helpOf(command: Command): string {
  let text = "";
  command.configureOutput({
    writeOut: (part) => {
      text += part;
    },
  });
  command.outputHelp();
  return text;
}

describe("the examples of --help", () => {
  it("work when they are pasted, each command has one, and the page lists every command", {
    timeout: DURATION_MS_MAX,
  }, async () => {
    const commands = createProgram().commands;
    assert.ok(commands.length >= 18);
    const page = await readFile(join(ROOT, "docs/command-line.md"), "utf8");
    const failures: string[] = [];
    for (const command of commands) {
      const name = command.name();
      assert.ok(page.includes(`\`${name}\``), `docs/command-line.md does not have \`${name}\``);
      const stdout = helpOf(command);
      const examples = [...stdout.slice(stdout.indexOf("\nExamples:")).matchAll(EXAMPLE)].map(
        ([, text = ""]) => text,
      );
      assert.ok(examples.length > 0, `${name} --help has no example`);
      for (const example of examples) {
        assert.ok(
          example.includes(`npx inventory ${name}`),
          `${name} --help has an example of another command: ${example}`,
        );
        const { code, output } = await paste(example);
        if (code !== 0 || output === "")
          failures.push(`${example}\nexited with ${code} and printed:\n${output}`);
      }
    }
    assert.deepEqual(failures, []);
  });
});
