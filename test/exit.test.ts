import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { isListening, startMain } from "./support/main-run.ts";

const run = promisify(execFile);
/** Ends a test that hangs: without the fix, the process never exits. */
const HANG_MS = 60_000;

describe("the end of a process that is profiled", () => {
  it("writes the profile, although a thread of libuv's pool works", async () => {
    const folder = await mkdtemp(join(tmpdir(), "inventory-exit-"));
    const exit = new URL("../server/exit.ts", import.meta.url).href;
    const script = `import { open } from "node:fs"; import { exitNow } from "${exit}"; open("/dev/null", "r", () => {}); exitNow(0);`;
    try {
      await run(process.execPath, [
        ...["--cpu-prof", `--cpu-prof-dir=${folder}`, "--input-type=module", "--eval", script],
      ]);
      assert.match((await readdir(folder)).join(), /\.cpuprofile$/);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});

describe("the end of the process while a thread of libuv's pool is blocked", { timeout: HANG_MS }, () => {
  let folder: string;
  let environment: NodeJS.ProcessEnv;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "inventory-exit-"));
    // Opening a FIFO without a writer blocks a thread indefinitely, as a name server that does not respond does for a time.
    const fifo = join(folder, "fifo");
    await run("mkfifo", [fifo]);
    const block = `import { open } from "node:fs"; open(${JSON.stringify(fifo)}, "r", () => undefined);`;
    environment = { NODE_OPTIONS: `--import data:text/javascript,${encodeURIComponent(block)}` };
  });
  after(() => rm(folder, { recursive: true, force: true }));

  it("exits with 0 at SIGTERM", async () => {
    await using main = startMain(environment);
    await isListening(main);
    main.signal("SIGTERM");
    assert.equal(await main.exit, 0);
    assert.match(main.stdout(), /"msg":"Shut down"/, "the log is complete");
  });

  it("exits with 2 for an invalid environment", async () => {
    await using main = startMain({ ...environment, PORT: "80a" });
    assert.equal(await main.exit, 2);
    assert.match(main.stderr(), /PORT/);
  });

  it("exits with 1 at a second signal", async () => {
    await using main = startMain({ ...environment, DRAIN_WAIT_MS: "60000" });
    await isListening(main);
    main.signal("SIGTERM");
    main.signal("SIGINT");
    assert.equal(await main.exit, 1);
  });
});
