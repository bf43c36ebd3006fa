import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { AUTH_TOKENS, TOKENS } from "../access/callers.ts";
import { INHERITED_ENVIRONMENT, startTestApp, type TestApp } from "../support/app.ts";
import { type Authority, createAuthority } from "../support/certificates.ts";
import { freePort } from "../support/free-port.ts";
import { findProgram, need } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { cliOf, runCli } from "./run-cli.ts";

describe("the connection of the command line", { skip: need("openssl").missing }, () => {
  let authority: Authority;
  let app: TestApp;
  let dir: string;
  before(async () => {
    authority = await createAuthority();
    dir = await mkdtemp(join(tmpdir(), "inventory-cli-"));
    const server = await authority.issue("localhost", "DNS:localhost,IP:127.0.0.1");
    app = await startTestApp({
      TLS_CERT: server.certFile,
      TLS_KEY: server.keyFile,
      TLS_CLIENT_CA: authority.certFile,
      TLS_CLIENT_ROLES: "seller.shop.example:supply",
      AUTH_TOKENS,
    });
  });
  after(async () => {
    await app.stop();
    await authority[Symbol.asyncDispose]();
    await rm(dir, { recursive: true, force: true });
  });

  it("verifies the server's certificate, and takes a token from a file or a variable", async () => {
    const unverified = await runCli(["list", "--url", app.url]);
    assert.deepEqual(
      [unverified.code, /^error: UNAVAILABLE: .* cannot be reached: .*certificate/.test(unverified.stderr)],
      [3, true],
      unverified.stderr,
    );

    const tokenFile = join(dir, "token");
    await writeFile(tokenFile, `${TOKENS.ops}\n`);
    const put = ["put", "tls-1", "--name", "Mug", "--price", "1", "--declared", "9"];
    const options = ["--url", app.url, "--ca-file", authority.certFile];
    const byFile = await runCli([...put, ...options, "--token-file", tokenFile]);
    assert.equal(byFile.code, 0, byFile.stderr);
    const byVariable = await runCli(["adjust", "tls-1", "-2", "--id", "tls-adjustment", ...options], {
      env: { INVENTORY_TOKEN: TOKENS.supply },
    });
    assert.equal(byVariable.code, 0, byVariable.stderr);
  });

  it("identifies itself by a client certificate, and the history names it", async () => {
    const { certFile, keyFile } = await authority.issue("seller.shop.example");
    const cli = cliOf(app.url, {
      INVENTORY_CA_FILE: authority.certFile,
      INVENTORY_CERT_FILE: certFile,
      INVENTORY_KEY_FILE: keyFile,
    });
    assert.equal((await cli.run("safety", "tls-1", "1")).code, 0);
    const { stdout } = await cli.run("history", "tls-1", "--limit", "1");
    assert.match(stdout, / safety .* seller\.shop\.example /);
  });

  it("exits with 4 without credentials, and with the wrong role", async () => {
    const env = { INVENTORY_CA_FILE: authority.certFile };
    const anonymous = await cliOf(app.url, env).run("list");
    assert.deepEqual([anonymous.code, anonymous.stdout], [4, ""]);
    assert.match(anonymous.stderr, /^error: UNAUTHENTICATED: .*INVENTORY_TOKEN.*\n$/);
    const orders = await cliOf(app.url, { ...env, INVENTORY_TOKEN: TOKENS.orders }).run("list");
    assert.deepEqual(
      [orders.code, /^error: PERMISSION_DENIED: /.test(orders.stderr)],
      [4, true],
      orders.stderr,
    );
    assert.equal((await cliOf(app.url, env).run("get", "tls-1")).code, 0);
  });

  it("traces what the role may read, and warns of the rest", async () => {
    const env = { INVENTORY_CA_FILE: authority.certFile, INVENTORY_TOKEN: TOKENS.supply };
    const { code, stdout, stderr } = await cliOf(app.url, env).run("trace", "tls-adjustment");
    assert.equal(code, 0, stderr);
    assert.match(stdout, / tls-1 +adjusted +-2 .* supply-service/);
    assert.match(stderr, /warning: PERMISSION_DENIED: /);
  });
});

describe("a server that is unavailable", () => {
  it("exits with 3 and names the address on which no server listens", async () => {
    const url = `http://localhost:${await freePort()}`;
    const { code, stderr } = await cliOf(url).run("get", "x");
    assert.equal(code, 3);
    assert.match(
      stderr,
      new RegExp(`^error: UNAVAILABLE: ${url} cannot be reached: .*ECONNREFUSED.*INVENTORY_URL.*\n$`),
    );
  });

  it("exits with 3 after --timeout if it does not respond", async () => {
    await using app = await startTestApp();
    await using proxy = await startTcpProxy({ target: { port: app.port } });
    await proxy.freeze();
    const { code, stderr } = await cliOf(proxy.url("http")).run("get", "x", "--timeout", "0.5");
    assert.deepEqual([code, /^error: DEADLINE_EXCEEDED: /.test(stderr)], [3, true], stderr);
  });

  it("marks reads as stale without its store, and refuses changes", {
    skip: need("redis-server").missing,
  }, async () => {
    await using redis = await startRedis();
    await using app = await startTestApp({ REDIS_URL: redis.url });
    const cli = cliOf(app.url);
    assert.equal(
      (await cli.run("put", "stale-1", "--name", "Mug", "--price", "1", "--declared", "9")).code,
      0,
    );
    await redis.stop();
    await until(async () => (await fetch(`${app.url}/readyz`)).status === 503, "the server notices");
    const read = await until(async () => {
      const result = await cli.run("get", "stale-1");
      return result.stderr !== "" && result;
    }, "the read is marked as stale");
    assert.equal(read.code, 0);
    assert.match(read.stdout, /^stale-1 /m);
    assert.match(read.stderr, /^warning: these counts may be out of date/);
    const { code, stderr } = await cli.run("adjust", "stale-1", "1");
    assert.deepEqual([code, /^error: UNAVAILABLE: /.test(stderr)], [3, true], stderr);
  });
});

const terminal = findProgram("script");

describe("the command line on a terminal", { skip: terminal === undefined && "no script(1)" }, () => {
  let app: TestApp;
  before(async () => {
    app = await startTestApp();
    const input = "product_id,name,price,declared\ntty-1,Mug,1,0\ntty-2,Pan,2,5\n";
    assert.equal((await cliOf(app.url).pipe(input, "import", "-")).code, 0);
  });
  after(() => app.stop());

  /** Runs a command on a pseudo-terminal, and answers its question. */
  async function onTerminal(command: string, answer?: string, env: NodeJS.ProcessEnv = {}) {
    const main = join(import.meta.dirname, "../../cli/main.ts");
    const child = spawn(terminal ?? "", ["-qec", `"${process.execPath}" "${main}" ${command}`, "/dev/null"], {
      env: { ...INHERITED_ENVIRONMENT, TERM: "xterm", INVENTORY_URL: app.url, ...env },
      stdio: ["pipe", "pipe", "ignore"],
    });
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
    const closed = once(child, "close");
    if (answer !== undefined) {
      await until(() => output.includes("[y/N]"), "it asks", 60_000);
      child.stdin.write(`${answer}\n`);
    }
    await closed;
    return { code: child.exitCode, output };
  }

  it("asks before it deletes, and deletes only after y", async () => {
    const declined = await onTerminal("delete tty-2", "n");
    assert.equal(declined.code, 1, declined.output);
    const interrupted = await onTerminal("delete tty-2", "\x03");
    assert.equal(interrupted.code, 130, interrupted.output);
    assert.equal((await cliOf(app.url).run("get", "tty-2")).code, 0);
    const confirmed = await onTerminal("delete tty-2", "y");
    assert.equal(confirmed.code, 0, confirmed.output);
    assert.equal((await cliOf(app.url).run("get", "tty-2")).code, 1);
  });

  it("shows a progress bar, and asks at the first row that deletes", async () => {
    const dir = await mkdtemp(join(tmpdir(), "inventory-tty-"));
    try {
      const path = join(dir, "bulk.csv");
      const rows = Array.from({ length: 5_000 }, (_, n) => `tty-bulk-${n},1,\n`).join("");
      await writeFile(path, `product_id,declared,deleted\n${rows}tty-bulk-1,,true\ntty-bulk-2,,true\n`);
      const { code, output } = await onTerminal(`import ${path}`, "y");
      assert.equal(code, 0, output);
      assert.match(output, /\[#+-*\] +\d+% {2}imported [\d,]+ rows, [\d,]+ a second/);
      assert.equal(output.match(/\[y\/N\]/g)?.length, 1, "one question for both rows");
      assert.match(output, /5,002 rows imported/);
      assert.equal(
        (await cliOf(app.url).run("get", "tty-bulk-1", "tty-bulk-2")).stderr.split("NOT_FOUND").length,
        3,
      );
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });

  it("has colors, and none with NO_COLOR", async () => {
    const { output } = await onTerminal("get tty-1");
    assert.ok(output.includes("\x1b[33m"), "nothing available is yellow");
    const { output: plain } = await onTerminal("get tty-1", undefined, { NO_COLOR: "1" });
    assert.ok(!plain.includes("\x1b["), plain);
  });
});
