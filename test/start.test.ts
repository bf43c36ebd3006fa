import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { startupBanner } from "../server/banner.ts";
import { readConfig, VARIABLES } from "../server/config.ts";
import { readBuildInfo } from "../server/ops/build-info.ts";
import { startTestApp } from "./support/app.ts";
import { freePort } from "./support/free-port.ts";
import { isListening, logLines, startMain } from "./support/main-run.ts";
import { need } from "./support/programs.ts";
import { startRedis } from "./support/redis-server.ts";
import { scrape } from "./support/scrape.ts";
import { until } from "./support/until.ts";

const ROOT = join(import.meta.dirname, "..");
const { version }: { version: string } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
const run = promisify(execFile);
const redis = need("redis-server");
const curl = need("curl");
const grpcurl = need("grpcurl");
/** Ends a test that hangs; every test here is much faster. */
const HANG_MS = 120_000;

describe("the command line", { timeout: HANG_MS }, () => {
  it("--version prints version and commit, also with an invalid configuration", async () => {
    for (const option of ["--version", "-v"]) {
      await using main = startMain({ PORT: "x", INVENTORY_COMMIT: "0123abc" }, option);
      assert.equal(await main.exit, 0);
      assert.equal(main.stdout(), `inventory-service ${version} (commit 0123abc)\n`);
      assert.equal(main.stderr(), "");
    }
  });

  it("--help lists the options and every variable, and starts nothing", async () => {
    for (const option of ["--help", "-h"]) {
      await using main = startMain({}, option);
      assert.equal(await main.exit, 0);
      assert.match(main.stdout(), /--version/);
      const words = new Set(main.stdout().split(/\s+/));
      assert.deepEqual(
        VARIABLES.filter((name) => !words.has(name)),
        [],
      );
      assert.equal(main.stderr(), "");
    }
  });

  it("refuses an unknown option or argument with exit code 2, and names it", async () => {
    for (const argument of ["--prot=1", "serve"]) {
      await using main = startMain({}, argument);
      assert.equal(await main.exit, 2);
      assert.equal(main.stdout(), "");
      assert.match(main.stderr(), new RegExp(argument.replace(/=.*/, "")));
      assert.match(main.stderr(), /--help/);
    }
  });
});

describe("a port that cannot be listened on", { timeout: HANG_MS }, () => {
  const CASES: readonly [
    what: string,
    environment: (port: number) => NodeJS.ProcessEnv,
    expected: (port: number) => RegExp,
  ][] = [
    [
      "is reported with the variable to change if another program has it",
      (port) => ({ PORT: String(port) }),
      (port) =>
        new RegExp(
          `port ${port} of 127\\.0\\.0\\.1 \\(EADDRINUSE\\): another program .*\\n.*set PORT to another`,
        ),
    ],
    [
      "is reported as ADMIN_PORT if it is the one for operators",
      (port) => ({ ADMIN_PORT: String(port) }),
      (port) => new RegExp(`port ${port} .*EADDRINUSE.*\\n.*set ADMIN_PORT to another`),
    ],
    [
      "is reported as HOST if this machine does not have the address",
      () => ({ HOST: "192.0.2.1", AUTH: "off" }),
      () => /192\.0\.2\.1 \(EADDRNOTAVAIL\): .*\nSet HOST to/,
    ],
    [
      "is reported as HOST if the name cannot be resolved",
      () => ({ HOST: "host.invalid", AUTH: "off" }),
      () => /host\.invalid \(E\w+\): .*\nSet HOST to/,
    ],
  ];
  for (const [what, environment, expected] of CASES) {
    it(what, async () => {
      const other = createServer().listen(0, "127.0.0.1");
      await until(() => other.listening, "the other program listens");
      const { port } = other.address() as { port: number };
      try {
        await using main = startMain(environment(port));
        assert.equal(await main.exit, 1);
        assert.match(main.stderr(), expected(port));
        assert.doesNotMatch(main.stderr(), /^\s+at /m, "without a stack trace");
      } finally {
        other.close();
      }
    });
  }
});

describe("an unknown variable", { timeout: HANG_MS }, () => {
  it("is named in a warning with the one that was meant, and without its value", async () => {
    await using main = startMain({ KAFKA_BROKER: "secret:9092", REDDIS_URL: "redis://:secret@r" });
    await isListening(main);
    await until(() => main.stdout().includes("REDDIS_URL"), "both warnings are logged");
    const warnings = logLines(main.stdout()).filter(({ level, variable }) => level === 40 && variable);
    assert.deepEqual(
      warnings.map(({ variable, meant }) => [variable, meant]),
      [
        ["KAFKA_BROKER", ["KAFKA_BROKERS"]],
        ["REDDIS_URL", ["REDIS_URL"]],
      ],
    );
    assert.match(String(warnings[0]?.["msg"]), /KAFKA_BROKER is unknown.*did you mean KAFKA_BROKERS\?/);
    assert.doesNotMatch(main.stdout() + main.stderr(), /secret/);
  });

  it("is named beside the faults of an invalid configuration", async () => {
    await using main = startMain({ HOST: "0.0.0.0", AUTH_TOKEN: "my-secret" });
    assert.equal(await main.exit, 2);
    assert.match(main.stderr(), /HOST is "0\.0\.0\.0".*\n.*AUTH_TOKEN is unknown.*AUTH_TOKENS\?/);
    assert.doesNotMatch(main.stderr(), /my-secret/);
  });

  it("is not warned of if the environment has none", async () => {
    await using main = startMain({ HOSTNAME: "h", npm_config_port: "1", REDIS_SERVICE_HOST: "10.0.0.1" });
    await isListening(main);
    main.signal("SIGTERM");
    assert.equal(await main.exit, 0);
    assert.doesNotMatch(main.stdout(), /is unknown/);
  });
});

describe("with Redis unreachable", { timeout: HANG_MS, skip: redis.missing }, () => {
  it("the first log line says that the server listens but is not ready, and why; later that it is", async () => {
    const port = await freePort();
    await using main = startMain({ REDIS_URL: `redis://127.0.0.1:${port}`, DEMO: "on" });
    await isListening(main);
    assert.match(
      String(logLines(main.stdout())[0]?.["msg"]),
      new RegExp(
        `^Listening on http://127\\.0\\.0\\.1:\\d+, but not ready: Redis .*ECONNREFUSED 127\\.0\\.0\\.1:${port}`,
      ),
    );
    await until(() => main.stderr().includes("Try it"), "the banner is printed");
    assert.match(main.stderr(), /ready +not yet: Redis is unavailable/);
    assert.match(main.stderr(), /Try it:\n +curl http:\S+\/readyz\n\n/, "no call that would fail");
    await using _redis = await startRedis({ port });
    await until(() => logLines(main.stdout()).some(({ msg }) => msg === "Ready"), "the log says so");
    const { url } = logLines(main.stdout())[0] ?? {};
    const demo = `{"productId":"demo-24"}`;
    const path = `/inventory.v1.StockService/GetStock?connect=v1&encoding=json&message=${encodeURIComponent(demo)}`;
    await until(async () => (await fetch(`${url}${path}`)).ok, "the demo is started");
  });
});

describe("the banner", { timeout: HANG_MS }, () => {
  it("is not printed with LOG_FORMAT=json", async () => {
    await using main = startMain({ LOG_FORMAT: "json" });
    await isListening(main);
    main.signal("SIGTERM");
    assert.equal(await main.exit, 0);
    assert.equal(main.stderr(), "");
  });

  for (const [what, productId] of [
    ["of a product that exists", 'it\'s a "product" $HOME'],
    ["of the list while there is no product", undefined],
  ] as const) {
    it(`has calls ${what}`, { skip: redis.missing || curl.missing || grpcurl.missing }, async () => {
      await using server = await startRedis();
      if (productId !== undefined) {
        await using first = await startTestApp({ REDIS_URL: server.url });
        const response = await fetch(`${first.url}/inventory.v1.SupplyService/PutProduct`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({ productId, declared: 7 }),
        });
        assert.equal(response.status, 200, await response.text());
      }
      for (const environment of [{}, { REFLECTION: "off" }]) {
        await using app = await startTestApp({ REDIS_URL: server.url, ...environment });
        assert.deepEqual(app.unreadyReasons, []);
        const calls = startupBanner(app, readConfig(environment)).match(/^ {4}.*curl .*$/gm) ?? [];
        assert.equal(calls.length, 2);
        for (const call of calls) {
          const PATH = [dirname(curl.path), dirname(grpcurl.path), process.env["PATH"]].join(delimiter);
          const { stdout } = await run("sh", ["-c", call], { env: { PATH }, cwd: ROOT });
          assert.match(stdout, productId === undefined ? /\{/ : /"available": ?7|"count": "7"/, call);
        }
      }
    });
  }

  const external = Object.values(networkInterfaces())
    .flatMap((each) => each ?? [])
    .some(({ family, internal }) => family === "IPv4" && !internal);
  it("has an address of the network if HOST is 0.0.0.0", {
    skip: !external && "this machine has no network",
  }, async () => {
    await using app = await startTestApp({ HOST: "0.0.0.0", AUTH: "off" });
    assert.match(app.url, /^http:\/\/localhost:/);
    const { hostname } = new URL(app.publicUrl);
    assert.doesNotMatch(hostname, /^(localhost|127\.|0\.0\.0\.0)/);
    assert.equal((await fetch(`${app.publicUrl}/healthz`)).status, 200);
    assert.ok(startupBanner(app, readConfig({})).includes(`page    ${app.publicUrl}/`));
  });
});

describe("the build", { timeout: HANG_MS }, () => {
  it("is in the start line, in /readyz of both ports, and in a metric", async () => {
    const build = { version, commit: "0123abc" };
    await using main = startMain({ INVENTORY_COMMIT: build.commit });
    await isListening(main);
    assert.partialDeepStrictEqual(logLines(main.stdout())[0], build);
    await using app = await startTestApp({ ADMIN_PORT: "0", INVENTORY_COMMIT: build.commit });
    for (const url of [app.url, app.adminUrl]) {
      assert.partialDeepStrictEqual(await (await fetch(`${url}/readyz`)).json(), { ready: true, ...build });
    }
    const { value } = await scrape(app.adminUrl);
    assert.equal(value("inventory_build_info", build), 1);
  });

  it("has the commit of the checkout, and of no other repository", async (t) => {
    const dir = await mkdtemp(join(tmpdir(), "inventory-build-"));
    t.after(() => rm(dir, { recursive: true, force: true }));
    const inside = join(dir, "inside");
    const git = (...args: string[]) =>
      run("git", ["-c", "user.name=n", "-c", "user.email=e@example.com", "-C", dir, ...args]);
    await run("mkdir", [inside]);
    for (const folder of [dir, inside]) {
      await writeFile(join(folder, "package.json"), '{"version":"1.2.3"}');
    }
    assert.deepEqual(readBuildInfo(dir, undefined), { version: "1.2.3", commit: "unknown" }, "no repository");
    await git("init", "-q");
    assert.equal(readBuildInfo(dir, undefined).commit, "unknown", "no commit");
    await git("add", ".");
    await git("commit", "-q", "-m", "x");
    const { stdout } = await git("rev-parse", "--short=12", "HEAD");
    assert.equal(readBuildInfo(dir, undefined).commit, stdout.trim());
    assert.equal(readBuildInfo(inside, undefined).commit, "unknown");
    assert.equal(readBuildInfo(dir, "given").commit, "given");
  });

  it("is unknown without git", async () => {
    const code = `import { readBuildInfo } from "./server/ops/build-info.ts";
      process.stdout.write(readBuildInfo(".", undefined).commit);`;
    const args = ["--input-type=module-typescript", "-e", code];
    const { stdout } = await run(process.execPath, args, { cwd: ROOT, env: { PATH: "/nowhere" } });
    assert.equal(stdout, "unknown");
  });
});
